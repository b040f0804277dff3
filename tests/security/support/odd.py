"""What stands in a request that nobody means, and what stands in one that somebody does: words only, of which
requests.py makes requests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

METHODS = ("GET", "POST", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE", "TRACE", "CONNECT", "FOO", "get")

ODD_TEXTS = (
    "", " ", "a", "x" * 3000, "é", "日本語", "\U0001f98a", "\ufeff", "\u2028", "a\nb", "a\r\nb: c", "~",
    "\x00", "\x1b[31m", "\x7f", "..", "../..", "/etc/passwd", "C:\\", "a b", "a/b", "a?b", "a#b", "a=b",
    "%", "%zz", "{{7*7}}", "<script>", "'\"", "null", "-1", "0", "1e400", "NaN", "true", "__proto__", "*",
    "<gradio-sep>", ":", "http://127.0.0.1:1/", "//evil.example", "file:///etc/passwd",
)  # fmt: skip
"""What stands in a path, a query, a form, a name."""
RAW_PARTS = (
    "%2e%2e", "%2e%2e%2f%2e%2e", "%00", "%0a", "%0d%0a", "%ff%fe", "%c0%af", "%ed%a0%80", "%", "%%", ".",
    "..", "...", ";", "a%2Fb", "%252e", "%u0041", "\\",
)  # fmt: skip
"""Parts of a path as they are sent, that no encoder would make."""
NAMES = ("generate", "models", "job", "jobs", "stop", "tiny", "fuzz", "1", "index.html", "img/logo.svg")
"""Parameters of a path that there are, or nearly."""
QUERIES = ("session_hash", "deep_link", "page", "all_session", "code", "state", "error", "upload_id", "view")

SCALARS = (
    "null", "true", "false", "0", "1", "-1", "-0", "0.5", "1e400", "-1e400", "1e308", "NaN", "Infinity",
    "-Infinity", "9007199254740993", "99999999999999999999", "9" * 400, "9" * 5000, "01", "+1", ".5", "0x10",
    '""', '"a"', '"fuzz"', '"\\ud800"', '"\\udfff a"', '"\\u0000"', '"\\ud83e\\udd8a"', '"a\\nb"', '"\\x"',
    '"', '"<gradio-sep>"', '"' + "x" * 3000 + '"', '"\u00e9"', "[]", "{}", "[[[[]]]]", "'a'", "undefined", "",
    "[" * 600 + "]" * 600, '{"a":' * 300 + "1" + "}" * 300,
    '{"path":"/etc/passwd","meta":{"_type":"gradio.FileData"}}', '{"__type__":"update"}',
)  # fmt: skip
"""JSON of the simplest kinds, and what isn't quite."""
KEYS = (
    "data", "fn_index", "session_hash", "event_id", "trigger_id", "event_data", "simple_format", "batched",
    "oauth_token", "request", "batch_trigger_ids", "prompt", "model", "negative_prompt", "width", "height",
    "steps", "guidance", "seed", "images", "job", "n", "size", "stream", "partial_images", "response_format",
    "quality", "user", "output_format", "jsonrpc", "id", "method", "params", "name", "arguments", "code",
    "hash", "username", "password", "fn_name", "component_id",
)  # fmt: skip
"""What the routes' bodies have."""
ODD_KEYS = ('""', '"\\ud800"', '"\\u0000"', '"__proto__"', '"self"', '"data "', '"a.b"', "a", "1", '"é"')
LIKELY = {
    "session_hash": ('"fuzz"', '"fuzz-2"'),
    "event_id": ('"fuzz"', '"0123456789abcdef0123456789abcdef"'),
    "trigger_id": ("1", "null"),
    "simple_format": ("true", "false"),
    "batched": ("true", "false"),
    "prompt": ('"a fox"',),
    "model": ('"tiny"', "null"),
    "width": ("64",),
    "height": ("64",),
    "size": ('"64x64"',),
    "steps": ("1",),
    "stream": ("true", "false"),
    "response_format": ('"url"', '"b64_json"'),
    "job": ('"00000000-0000-4000-8000-00000000000a"',),
    "jsonrpc": ('"2.0"',),
    "id": ("1", '"a"'),
    "method": ('"initialize"', '"tools/list"', '"tools/call"', '"ping"', '"notifications/cancelled"'),
    "params": (
        '{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"x","version":"1"}}',
        '{"name":"list_models","arguments":{}}',
        '{"name":"draw","arguments":{"prompt":"a fox","steps":1}}',
    ),
}
"""Values as the routes expect them, of small drawings; those of `data` and `fn_index` are the page's own."""
SHAPES = (
    ("data", "fn_index", "session_hash"),
    ("data", "fn_index", "session_hash", "event_data", "trigger_id"),
    ("data",),
    ("data", "session_hash"),
    ("session_hash", "fn_index", "event_id"),
    ("event_id",),
    ("prompt", "steps"),
    ("prompt", "size", "stream", "steps"),
    ("job",),
    ("jsonrpc", "id", "method", "params"),
    ("prompt",),
    ("code",),
    ("hash",),
    (),
)
"""Which keys the bodies have together."""

RANGES = (
    "bytes=0-0", "bytes=0-1,3-4", "bytes=0-5,2-9", "bytes=-0", "bytes=-1", "bytes=0-,-1", "bytes=5-2",
    "bytes=",
    "bytes=-", "bytes", "bytes=a-b", "bytes=0-99999999999999999999", "bytes=99999999999999999999-",
    "items=0-1",
    "bytes=-99999999999999999999", "bytes= 0 - 1 , 3 - 4 ", "BYTES=0-1", "bytes=0-1,,3-4", "bytes=--1", "",
    "bytes=0x1-0x2", "bytes=0-1;q=1", "bytes=" + ",".join(f"{2 * n}-{2 * n}" for n in range(150)),
    "bytes=" + "9" * 5000 + "-", "bytes=\u00b2-", "bytes=1_0-2_0",
)  # fmt: skip
DATES = (
    "Thu, 01 Jan 1970 00:00:00 GMT",
    "Thu, 99 Foo 0000 00:00:00 XXX",
    "Thu, 01 Jan 99999 00:00:00 GMT",
    "0",
)
HOSTS = ("127.0.0.1", "localhost", "127.0.0.1:1", "[::1]", "[::1]:7860", "[", "[::1", "a b", "a/b", "a?b",
"@",
         "evil.example", "x:99999", "x:abc", "x:-1", ":", "", "é.example", "xn--a", "%00", "a" * 300, "a,b",
         "\x01", "a\\b")  # fmt: skip
HEADERS: Mapping[str, Sequence[str]] = {
    "Range": RANGES,
    "If-Range": ('"a"', 'W/"a"', *DATES),
    "If-None-Match": ("*", '"a"', 'W/"a", "b"', "a", '"' + "x" * 3000 + '"'),
    "If-Modified-Since": DATES,
    "Accept": ("*/*", "text/html", "text/event-stream", "application/json, text/event-stream", "a", ";q=x",
    "/"), "Accept-Encoding": ("gzip", "br", "br;q=0", "gzip, br", "identity;q=0", "*", "zstd", "gzip;q=NaN",
    "\u00e9"), "Accept-Language": ("de", "*", "x" * 3000),
    "Content-Type": (
        "application/json", "application/json; charset=utf-16", "application/problem+json",
        "application/x-ndjson",
        "APPLICATION/JSON", "application/json;", "text/plain", "application/octet-stream", "", "a", "/", ";",
        "application/x-www-form-urlencoded", "multipart/form-data", "multipart/form-data; boundary=",
        "multipart/form-data; boundary=b",
        'multipart/form-data; boundary="b', "multipart/form-data; boundary=\u00e9",
        "multipart/mixed; boundary=b", "multipart/form-data; charset=x; boundary=b", "text/event-stream",
    ),
    "Content-Encoding": ("identity", "gzip", "deflate, gzip", "x", ""),
    "Last-Event-ID": ("", "0", "1", "fuzz", "\x01", "é", "x" * 3000, "../..", "-1"),
    "Mcp-Session-Id": ("", "fuzz", "0123456789abcdef0123456789abcdef", "é", "a b", "x" * 3000, "\x7f"),
    "Mcp-Protocol-Version": ("2025-06-18", "1", "", "é", "9999-99-99"),
    "Authorization": (
        "", "Bearer", "Bearer ", "Bearer x", "Bearer \u00e9", "bearer hf_x", "Bearer hf_\x7f", "Basic",
        "Basic !",
        "Basic YTpi", "Basic /////w==", "Basic 7aCAOg==", "Digest a=b", "x" * 3000,
    ),
    "X-HF-Authorization": ("Bearer hf_x", "Bearer hf_\u00e9", "x"),
    "Cookie": (
        "a=b", "=", ";", ";;=;", "access-token-x=1", "a=\u00e9", 'a="\\"', "a=b; a=c",
        "session=" + "x" * 3000,
        "stepwise-login=x", "stepwise-login-state=e30=.x.x", "stepwise-login-state=\u00e9",
    ),
    "Origin": ("null", "http://[", "http://127.0.0.1", "https://evil.example", "", "é", "http://x:abc",
    "//", "a"), "Access-Control-Request-Method": ("GET", "FOO", "", "é"),
    "Access-Control-Request-Headers": ("*", "é", "a, b", "x" * 3000),
    "Sec-Fetch-Site": ("same-origin", "cross-site", "none", "x"),
    "Sec-Fetch-Mode": ("navigate", "cors", "x"),
    "Referer": ("http://[", "é", ""),
    "Expect": ("100-continue", "200-ok", ""),
    "Connection": ("keep-alive", "Upgrade", "close, TE"),
    "Upgrade": ("websocket", "h2c", ""),
    "X-Forwarded-For": ("1.2.3.4", "::1", "é", "a, b", "", "1.2.3.4:80", "[::1]:80", "%", "unknown"),
    "X-Forwarded-Proto": ("https", "http, https", "ws", "é", ""),
    "X-Forwarded-Host": HOSTS,
    "X-Forwarded-Prefix": ("/a", "//", "é"),
    "X-Gradio-Server": ("http://[", "x:abc", "http://x:abc", "é", "http://evil.example", "\x01", "",
    "a" * 300), "X-Gradio-User": ("a", "é"),
    "X-Zerogpu-Token": ("a", "é"),
    "X-HTTP-Method-Override": ("DELETE",),
    "X-Api-Key": ("a",),
    "User-Agent": ("", "é", "x" * 3000),
}  # fmt: skip
FAMILIES = (
    ("Mcp-Session-Id", "Accept", "Last-Event-ID"),
    ("Mcp-Session-Id", "Accept", "Mcp-Protocol-Version"),
    ("Range", "If-Range", "Accept-Encoding"),
    ("If-None-Match", "If-Modified-Since"),
    ("Origin", "Access-Control-Request-Method", "Access-Control-Request-Headers"),
    ("X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-For"),
    ("Content-Type", "Content-Encoding"),
)
"""Headers that mean something together."""
