//! The status page: one document without anything from elsewhere, and a policy that lets no browser run or load more than that.

use std::sync::LazyLock;

use axum::http::header;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, digest};

const STYLE: &str = include_str!("page/page.css");
const SCRIPT: &str = include_str!("page/page.js");

/// Head, up to what the style element holds; body, up to what the script element holds; end. The first two do not end with a newline:
/// it would belong to the element, and to its hash.
const FRAME: [&str; 3] =
    [include_str!("page/head.html"), include_str!("page/body.html"), include_str!("page/end.html")];

static DOCUMENT: LazyLock<String> = LazyLock::new(|| [FRAME[0], STYLE, FRAME[1], SCRIPT, FRAME[2]].concat());

/// What comes from clusters is text in the page; were it ever taken for markup, this would still hold.
static POLICY: LazyLock<String> = LazyLock::new(|| {
    let hash = |text: &str| STANDARD.encode(digest(&SHA256, text.as_bytes()));
    format!(
        "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; connect-src 'self'; img-src data:; base-uri 'none'; form-action \
         'none'; frame-ancestors 'none'",
        hash(SCRIPT),
        hash(STYLE)
    )
});

pub async fn show() -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, POLICY.as_str()),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, DOCUMENT.as_str()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Otherwise the hashes would not be those of what the browser finds between the tags.
    #[test]
    fn one_style_and_one_script() {
        for tag in ["<style", "</style", "<script", "</script"] {
            assert_eq!(DOCUMENT.matches(tag).count(), 1, "{tag}");
        }
        assert!(FRAME[0].ends_with("<style>") && FRAME[1].starts_with("</style>"));
        assert!(FRAME[1].ends_with("<script>") && FRAME[2].starts_with("</script>"));
        assert!(!DOCUMENT.contains(" style=") && !DOCUMENT.contains(" onclick="), "the policy forbids them");
    }
}
