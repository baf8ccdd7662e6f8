"""What the services need from outside, as protocols: a broker, a store, a clock."""
