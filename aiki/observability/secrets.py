"""URLs carry passwords; what people and logs see of them does not."""

import re

__all__ = ["masked"]

# Greedy up to the last '@': a password with an unescaped '@' in it is hidden whole.
_USER_INFO = re.compile(r"((?:^|://|\s)[^:/@\s]*):(?!//)\S*@")
_FIELD = re.compile(r"(password|passwd|secret|token)([=:])[^&,;\s]*", re.IGNORECASE)


def masked(text: str) -> str:
    """Write *text* with every password of a URL in it replaced by asterisks."""
    return _FIELD.sub(r"\1\2***", _USER_INFO.sub(r"\1:***@", text))
