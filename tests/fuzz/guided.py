"""Coverage-guided fuzzing of the codecs of messages: `make fuzz SECONDS=60`. Needs `pip install aiki[fuzz]`.

It begins with a valid message of each type and follows whatever new paths its changes find. What breaks the promise
(a value, or ``UndecodableError``) ends it and is written to a file: make that an example of test_messages.py.
"""

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["aiki"]):
    from aiki.errors import UndecodableError
    from tests.fuzz.mutations import CODECS, samples

MESSAGE_BYTES_MAX = 64 * 1024


def examine(data: bytes) -> None:
    """Read *data* as each kind of message; what can be read can be written and read again."""
    for codec in CODECS:
        try:
            value = codec.decode(data)
        except UndecodableError:
            continue
        text = codec.encode(value)
        assert codec.encode(codec.decode(text)) == text


def main(seconds: int) -> None:
    """Fuzz for *seconds*."""
    with tempfile.TemporaryDirectory() as folder:
        for number, sample in enumerate(samples()):
            Path(folder, str(number)).write_bytes(sample)
        limits = [f"-max_total_time={seconds}", f"-max_len={MESSAGE_BYTES_MAX}", "-timeout=10", "-rss_limit_mb=2048"]
        atheris.Setup([sys.argv[0], *limits, "-print_final_stats=1", folder], examine)
        atheris.Fuzz()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 60)
