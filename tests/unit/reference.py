"""What the parser should say, written the slow and obvious way: regular expressions over a whole message.

Independent of src/_parser.pyx: it shares the standards and the names of the refusals, nothing else. No limits
but the number of empty lines and of fields and the length of a method, and no incremental reading.
"""

import ipaddress
import re

TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
QUOTED = rb'"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t\x20-\x7e\x80-\xff])*"'
PATH = rb"/(?:[!$&-.0-;=@-\[\]-~/\x80-\xff]|%[0-9A-Fa-f]{2})*"
QUERY = rb"[!-\"$-~\x80-\xff]*"
VALUE = rb"[\t\x20-\x7e\x80-\xff]*"
HOST = rb"(?:[A-Za-z0-9\-._~!$&'()*+;=]|%[0-9A-Fa-f]{2})+"
EXTENSION = rb"[ \t]*;[ \t]*" + TOKEN + rb"(?:[ \t]*=[ \t]*(?:" + TOKEN + rb"|" + QUOTED + rb"))?"
CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]+)(?:" + EXTENSION + rb")*")


class Refused(Exception):
    pass


class Unfinished(Exception):
    pass


def next_line(data):
    """The first line without its CRLF and what follows."""
    if b"\n" not in data:
        raise Unfinished
    line, rest = data.split(b"\n", 1)
    return line + b"\n", rest


def refusal_at(line, at, reason):
    """The refusal for the octet at line[at]: by `reason` unless it is a lone CR or LF."""
    if line[at:] == b"\n":
        return Refused("REFUSAL_BARE_LF")
    if line[at : at + 1] == b"\r" and line[at:] != b"\r\n":
        return Refused("REFUSAL_BARE_CR")
    return Refused(reason)


def is_authority(text, needs_port=False):
    match = re.fullmatch(rb"(?:\[([0-9A-Fa-f:.]*)\]|" + HOST + rb")(?::([0-9]{0,5}))?", text)
    if not match or int(match[2] or 0) > 65535 or (needs_port and not match[2]):
        return False
    if match[1] is not None:
        try:
            ipaddress.IPv6Address(match[1].decode())
        except ValueError:
            return False
    return True


def read_path(line, start):
    """path and query at line[start:] up to a space, and where they end."""
    match = re.compile(b"(" + PATH + rb")?(?:\?(" + QUERY + b"))?").match(line, start)
    if line[match.end() : match.end() + 1] == b" ":
        return match[1] or b"", match[2], match.end()
    octet = line[match.end() : match.end() + 1]
    reasons = {
        b"#": "REFUSAL_TARGET_FRAGMENT",
        b"%": "REFUSAL_BAD_PERCENT",
        b"\r": "REFUSAL_BAD_REQUEST_LINE",
    }
    raise refusal_at(line, match.end(), reasons.get(octet, "REFUSAL_BAD_TARGET"))


def read_other_target(line, start, method):
    """form, path, query, authority of a target that does not begin with a slash, and where it ends."""
    end = re.compile(QUERY).match(line, start).end()
    if line[end : end + 1] != b" ":
        octet = line[end : end + 1]
        reasons = {b"#": "REFUSAL_TARGET_FRAGMENT", b"\r": "REFUSAL_BAD_REQUEST_LINE"}
        raise refusal_at(line, end, reasons.get(octet, "REFUSAL_BAD_TARGET"))
    target = line[start:end]
    if not target:
        raise Refused("REFUSAL_BAD_REQUEST_LINE")
    if target == b"*":
        return "asterisk", b"*", None, b"", end
    if method == b"CONNECT":
        if b"@" in target:
            raise Refused("REFUSAL_USERINFO")
        if not is_authority(target, needs_port=True):
            raise Refused("REFUSAL_BAD_AUTHORITY")
        return "authority", b"", None, target, end
    match = re.match(rb"(?i:https?)://([^/?]*)", target)
    if not match:
        raise Refused("REFUSAL_BAD_SCHEME" if re.match(rb"[^:]*://", target) else "REFUSAL_TARGET_FORM")
    if b"@" in match[1]:
        raise Refused("REFUSAL_USERINFO")
    if not is_authority(match[1]):
        raise Refused("REFUSAL_BAD_AUTHORITY")
    path, query, end = read_path(line, start + match.end())
    return "absolute", path or b"/", query, match[1], end


def read_request_line(line, head):
    match = re.match(TOKEN, line)
    at = match.end() if match else 0
    if line[at : at + 1] == b"\r":
        raise refusal_at(line, at, "REFUSAL_BAD_REQUEST_LINE")
    if not match or line[at : at + 1] != b" ":
        raise refusal_at(line, at, "REFUSAL_BAD_METHOD")
    if at > 32:
        raise Refused("REFUSAL_METHOD_TOO_LONG")
    head["method"] = method = match[0]
    start = at + 1
    if line[start : start + 1] == b"/":
        form, authority = "origin", b""
        path, query, end = read_path(line, start)
    else:
        form, path, query, authority, end = read_other_target(line, start, method)
    head.update(target=line[start:end], form=form, path=path, query=query, authority=authority)
    version = line[end + 1 :]
    if version.startswith(b" "):
        raise Refused("REFUSAL_BAD_REQUEST_LINE")
    match = re.fullmatch(rb"HTTP/([0-9])\.([0-9])\r\n", version)
    if not match:
        # The longest beginning that could still become a version; what follows it is wrong.
        steps = [b"H", b"T", b"T", b"P", b"/", b"[0-9]", rb"\.", b"[0-9]"]
        good = max(i for i in range(9) if re.match(b"".join(steps[:i]), version))
        raise refusal_at(version, good, "REFUSAL_BAD_VERSION")
    if line == b"PRI * HTTP/2.0\r\n":
        raise Refused("REFUSAL_HTTP2_PREFACE")
    if match[1] != b"1":
        raise Refused("REFUSAL_VERSION_NOT_SUPPORTED")
    head["version"] = (1, 0 if match[2] == b"0" else 1)
    if (method == b"CONNECT") != (form == "authority") or (form == "asterisk" and method != b"OPTIONS"):
        raise Refused("REFUSAL_TARGET_FORM")


def read_field(line):
    """Name and value of a field line."""
    match = re.match(b"(" + TOKEN + rb"):(" + VALUE + b")", line)
    if match:
        if line[match.end() :] == b"\r\n":
            return match[1], match[2].strip(b" \t")
        raise refusal_at(line, match.end(), "REFUSAL_BAD_FIELD_VALUE")
    if line[:1] in b" \t":
        raise Refused("REFUSAL_OBS_FOLD")
    if line.startswith(b":"):
        raise Refused("REFUSAL_EMPTY_FIELD_NAME")
    name = re.match(b"(?:" + TOKEN + b")?", line)
    if re.match(rb"[ \t]+:", line[name.end() :]):
        raise Refused("REFUSAL_SPACE_BEFORE_COLON")
    raise refusal_at(
        line, name.end(), "REFUSAL_NO_COLON" if line[name.end() :] == b"\r\n" else "REFUSAL_BAD_FIELD_NAME"
    )


def read_content_length(value, head):
    if head["is_chunked"]:
        raise Refused("REFUSAL_TWO_FRAMINGS")
    if not re.fullmatch(rb"[0-9]*(?:,[0-9, \t]*)?", value) or not re.search(b"[0-9]", value):
        raise Refused("REFUSAL_BAD_CONTENT_LENGTH")
    if b"," in value or head["content_length"] is not None:
        raise Refused("REFUSAL_TWO_CONTENT_LENGTHS")
    if int(value) >= 1 << 63:
        raise Refused("REFUSAL_CONTENT_LENGTH_OVERFLOW")
    head["content_length"] = int(value)


def read_transfer_encoding(value, head):
    if head["content_length"] is not None:
        raise Refused("REFUSAL_TWO_FRAMINGS")
    if head["version"] == (1, 0):
        raise Refused("REFUSAL_TRANSFER_ENCODING_IN_HTTP10")
    is_unknown = False
    for coding in value.split(b","):
        coding = coding.strip(b" \t").lower()
        if not re.fullmatch(TOKEN, coding):
            raise Refused("REFUSAL_BAD_TRANSFER_ENCODING")
        if coding == b"chunked":
            if head["is_chunked"]:
                raise Refused("REFUSAL_CHUNKED_TWICE")
            head["is_chunked"] = True
        elif head["is_chunked"]:
            raise Refused("REFUSAL_CHUNKED_NOT_LAST")
        else:
            is_unknown = True
    if is_unknown:
        raise Refused("REFUSAL_UNKNOWN_CODING")


def read_head(data):
    """The head at the beginning of data, as a dictionary, and the bytes behind it."""
    empty_lines = 0
    while True:
        if data.startswith(b"\x16"):
            raise Refused("REFUSAL_TLS_ON_PLAIN_PORT")
        line, data = next_line(data)
        if line != b"\r\n":
            break
        empty_lines += 1
        if empty_lines > 8:
            raise Refused("REFUSAL_EMPTY_LINES")
    head = {"fields": [], "content_length": None, "is_chunked": False, "host": None}
    read_request_line(line, head)
    options = []
    expectation = False
    while True:
        line, data = next_line(data)
        if line == b"\r\n":
            break
        if line.startswith(b"\r"):
            raise Refused("REFUSAL_BARE_CR")
        name, value = read_field(line)
        if len(head["fields"]) == 100:
            raise Refused("REFUSAL_TOO_MANY_FIELDS")
        head["fields"].append((name, value))
        name = name.lower()
        if name == b"host":
            if head["host"] is not None:
                raise Refused("REFUSAL_TWO_HOSTS")
            if value and not is_authority(value):
                raise Refused("REFUSAL_BAD_HOST")
            head["host"] = value
        elif name == b"connection":
            options += [option.strip(b" \t").lower() for option in value.split(b",")]
        elif name == b"content-length":
            read_content_length(value, head)
        elif name == b"transfer-encoding":
            read_transfer_encoding(value, head)
        elif name == b"expect" and head["version"] == (1, 1):
            if value.lower() != b"100-continue":
                raise Refused("REFUSAL_EXPECTATION")
            expectation = True
    if head["version"] == (1, 1) and head["host"] is None:
        raise Refused("REFUSAL_NO_HOST")
    head["keep_alive"] = b"close" not in options and (head["version"] == (1, 1) or b"keep-alive" in options)
    head["expects_continue"] = expectation and (head["is_chunked"] or bool(head["content_length"]))
    return head, data


def read_chunked(data):
    """The decoded content at the beginning of data and the bytes behind it.

    Knows only right and wrong: every refusal of the coding itself is Refused("chunked").
    """
    content = b""
    while True:
        line, data = next_line(data)
        match = CHUNK_LINE.fullmatch(line.removesuffix(b"\r\n"))
        if not line.endswith(b"\r\n") or not match or len(match[1]) > 16 or int(match[1], 16) >= 1 << 63:
            raise Refused("chunked")
        size = int(match[1], 16)
        if size == 0:
            break
        if len(data) < size + 2:
            if not b"\r\n".startswith(data[size:]):
                raise Refused("chunked")
            raise Unfinished
        if data[size : size + 2] != b"\r\n":
            raise Refused("chunked")
        content += data[:size]
        data = data[size + 2 :]
    while True:
        line, data = next_line(data)
        if line == b"\r\n":
            return content, data
        try:
            read_field(line)
        except Refused:
            raise Refused("chunked") from None
