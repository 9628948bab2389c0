"""A connection read by the parser and the decoder of chunked content alone, as plain values."""

from fastwsgi._chunked import ChunkedDecoder
from fastwsgi._parser import RequestParser, method_t


def head_of(parser):
    """All that a complete head says, as it stands in the JSON of a vector."""
    method_id = method_t(parser.method_id).name
    return {
        "method": parser.method.decode("latin-1"),
        "method_id": method_id.removeprefix("METHOD_"),
        "request_line": parser.request_line.decode("latin-1"),
        "target": parser.target.decode("latin-1"),
        "form": parser.form,
        "target_is_https": parser.target_is_https,
        "path": parser.path.decode("latin-1"),
        "path_needs_decoding": parser.path_needs_decoding,
        "path_is_ascii": parser.path_is_ascii,
        "query": None if parser.query is None else parser.query.decode("latin-1"),
        "query_is_ascii": parser.query_is_ascii,
        "authority": parser.authority.decode("latin-1"),
        "version": list(parser.version),
        "fields": [[name.decode("latin-1"), value.decode("latin-1")] for name, value in parser.fields],
        "notes": [list(note) for note in parser.field_notes],
        "host": None if parser.host is None else parser.host.decode("latin-1"),
        "content_length": parser.content_length,
        "is_chunked": parser.is_chunked,
        "keep_alive": parser.keep_alive,
        "expects_continue": parser.expects_continue,
        "head_size": parser.head_size,
    }


def converse(pieces, limits):
    """Read a connection that comes in these pieces; its complete requests and how it ended.

    It ends with "NEED_MORE" between requests, "UNFINISHED" inside one, or the name of a refusal.
    """
    requests = []
    parser = RequestParser(**limits)
    head = decoder = None
    has_begun = False
    missing = 0
    content = b""
    for piece in pieces:
        while piece or (head and not decoder and missing == 0):
            if head is None:
                has_begun = True
                outcome = parser.feed(piece)
                if outcome == "NEED_MORE":
                    break
                if outcome != "HEAD_DONE":
                    return requests, outcome
                head = head_of(parser)
                piece = parser.rest
                decoder = ChunkedDecoder(**limits) if parser.is_chunked else None
                missing = parser.content_length or 0
                content = b""
                parser.reset()
            elif decoder:
                outcome, decoded, used = decoder.feed(piece)
                content += decoded
                piece = piece[used:]
                if outcome == "CONTENT_DONE":
                    decoder = None
                elif outcome == "NEED_MORE":
                    assert not piece
                else:
                    return requests, outcome
            elif missing:
                content += piece[:missing]
                piece, missing = piece[missing:], missing - len(piece[:missing])
            else:
                requests.append({**head, "content": content.decode("latin-1")})
                head = None
                has_begun = False
    return requests, "UNFINISHED" if has_begun else "NEED_MORE"
