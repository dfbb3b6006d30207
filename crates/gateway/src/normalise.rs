//! Both prefixes and both slash forms, without redirects (`rest.md` 0.1).
//!
//! Every route exists with and without `/api/v1`, and with and without a trailing slash. Rewriting the path before
//! routing serves all four from one router, so a route cannot be mounted in one form and forgotten in another.

use http::{Uri, uri::PathAndQuery};

/// The prefix that may stand in front of every path.
pub const API_PREFIX: &str = "/api/v1";

/// The address with its path in the one form that routes are written in; `None` when it already is.
#[must_use]
pub fn normalise(uri: &Uri) -> Option<Uri> {
    let path = uri.path();
    let mut plain = match path.strip_prefix(API_PREFIX) {
        Some(rest) if rest.starts_with('/') => rest,
        _ => path,
    };
    if plain.len() > 1 {
        plain = plain.strip_suffix('/').unwrap_or(plain);
    }
    if plain.len() == path.len() {
        return None;
    }
    let path_and_query: PathAndQuery = match uri.query() {
        Some(query) => format!("{plain}?{query}").parse().ok()?,
        None => plain.parse().ok()?,
    };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(path_and_query);
    Uri::from_parts(parts).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_forms_are_one() {
        for (from, to) in [
            ("/api/v1/storage/sandboxes", "/storage/sandboxes"),
            ("/api/v1/storage/sandboxes/?a=b%20c", "/storage/sandboxes?a=b%20c"),
            ("/storage/sandboxes/", "/storage/sandboxes"),
            ("/api/v1/", "/"),
        ] {
            assert_eq!(normalise(&from.parse().unwrap()).unwrap(), to, "{from}");
        }
        for same in ["/storage/sandboxes", "/", "/api/v1", "/api/v10/a", "/api/v1x/a"] {
            assert_eq!(normalise(&same.parse().unwrap()), None, "{same}");
        }
    }

    #[test]
    fn the_prefix_is_taken_off_once() {
        assert_eq!(normalise(&"/api/v1/api/v1/a".parse().unwrap()).unwrap(), "/api/v1/a");
    }
}
