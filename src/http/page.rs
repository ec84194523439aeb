//! The status page for a browser: one file, which asks `/debug/status` once a second and draws.
//!
//! The promise: the browser asks nobody but us, and runs nothing that is not in the file. What clients named is in the
//! JSON, not in the page, and the page puts it in as text; should it ever fail to, the policy stops what would run.
//!
//! Read first: Content Security Policy Level 3, sections 2.3.1 (nonces) and 6.1 (fetch directives).

use hyper::Response;
use hyper::header::{CONTENT_SECURITY_POLICY, HeaderValue, REFERRER_POLICY};

use super::body::Content;

/// The file. `NONCE` stands where the nonce of each response goes.
const FILE: &str = include_str!("page.html");

/// The content of the page, allowed to run under `nonce`.
pub(super) fn content(nonce: &str) -> Content {
    Content::text(FILE.replace("NONCE", nonce))
}

/// A nonce that nobody can guess.
pub(super) fn nonce() -> String {
    format!("{:032x}", rand::random::<u128>())
}

/// Forbids everything the page does not need.
pub(super) fn protect(response: &mut Response<Content>, nonce: &str) {
    let policy = format!(
        "default-src 'none'; connect-src 'self'; img-src data:; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    );
    let policy = HeaderValue::try_from(policy).expect("printable ASCII");
    response.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
    response.headers_mut().insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_refers_to_nothing_outside_and_is_small() {
        for reference in ["http:", "https:", "//", "@import", "url(", "src=", "import(", "WebSocket"] {
            assert!(!FILE.contains(reference), "{reference}");
        }
        assert!(FILE.len() < 32 * 1024, "{} bytes", FILE.len());
    }

    #[test]
    fn the_file_makes_no_markup_of_what_it_shows() {
        for way in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "DOMParser", " on"] {
            let found = FILE.match_indices(way).find(|(at, _)| way != " on" || is_handler(&FILE[*at..]));
            assert_eq!(found, None, "{way}");
        }
    }

    /// Whether a text begins with an attribute that runs something: ` onclick=`.
    fn is_handler(text: &str) -> bool {
        text.trim_start().split_once('=').is_some_and(|(name, _)| name.bytes().all(|it| it.is_ascii_lowercase()))
    }
}
