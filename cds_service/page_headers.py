"""The headers of the pages: what a browser may do with them."""

from collections.abc import Mapping

HTML = "text/html"
_TO_READ = (
    "default-src 'none'",
    "style-src 'self'",
    "img-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
)
_WITH_FORM = (
    "default-src 'none'",
    *(f"{kind}-src 'self'" for kind in ("style", "script", "img", "connect")),
    "form-action 'self'",
    "base-uri 'none'",
    "frame-ancestors 'none'",
)
TO_READ: Mapping[str, str] = {
    "Content-Security-Policy": "; ".join(_TO_READ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
# Without a referrer a browser says "Origin: null" of a page with a form, as of a stranger's.
WITH_FORM: Mapping[str, str] = {
    "Content-Security-Policy": "; ".join(_WITH_FORM),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Vary": "Accept",
}
