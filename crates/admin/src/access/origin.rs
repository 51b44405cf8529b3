//! Whether a request comes from a page of ours: the rule of Go 1.25's `http.CrossOriginProtection`. Browsers say it in
//! `Sec-Fetch-Site`; where they do not (plain HTTP by name), `Origin` must name the host that was asked. What sends neither
//! is no browser. Names that lead here and are not ours are refused before.

use axum::http::{HeaderMap, Uri, header};

pub(super) fn is_ours(headers: &HeaderMap) -> bool {
    if let Some(site) = headers.get("sec-fetch-site") {
        return site == "same-origin" || site == "none";
    }
    let Some(origin) = headers.get(header::ORIGIN) else {
        return true;
    };
    let authority = |value: &str| {
        let uri = value.parse::<Uri>().ok()?;
        uri.authority()
            .map(|authority| authority.as_str().to_ascii_lowercase())
    };
    let origin = origin.to_str().ok().and_then(authority);
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    match (origin, host) {
        (Some(origin), Some(host)) => origin == host.to_ascii_lowercase(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn is(pairs: &[(&'static str, &str)]) -> bool {
        let headers = pairs.iter().map(|(name, value)| {
            let name: axum::http::HeaderName = name.parse().unwrap();
            (name, value.parse().unwrap())
        });
        is_ours(&headers.collect())
    }

    #[test]
    fn our_own_pages_and_programs() {
        assert!(is(&[]));
        assert!(is(&[("sec-fetch-site", "same-origin"), ("origin", "null")]));
        assert!(is(&[("sec-fetch-site", "none")]));
        assert!(is(&[
            ("origin", "http://turnhook.test:81"),
            ("host", "Turnhook.test:81")
        ]));
    }

    #[test]
    fn other_sites() {
        let host = ("host", "turnhook.test");
        for site in ["cross-site", "same-site", ""] {
            let origin = ("origin", "http://turnhook.test");
            assert!(!is(&[("sec-fetch-site", site), origin, host]), "{site}");
        }
        for origin in [
            "null",
            "http://evil.test",
            "http://turnhook.test:81",
            "http://turnhook.test.evil.test",
            "turnhook.test/",
        ] {
            assert!(!is(&[("origin", origin), host]), "{origin}");
        }
        assert!(!is(&[("origin", "http://turnhook.test")]), "no host");
    }
}
