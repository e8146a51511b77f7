//! Cookies, as npm's `cookie` writes them; among them the one that names a connection.

use std::fmt::Write as _;

use http::HeaderValue;

use crate::engineio::{CookieConfig, CookiePriority, SameSite, Sid};

/// The `Set-Cookie` of the answer to a polling handshake. A WebSocket needs none: its requests are
/// over.
pub(crate) fn set_cookie(config: &CookieConfig, sid: Sid) -> HeaderValue {
    // A sid has no character that would have to be escaped.
    write_cookie(config, sid.as_str())
}

/// A cookie of these attributes. The value is ASCII, and escaped where it has to be.
pub(crate) fn write_cookie(config: &CookieConfig, value: &str) -> HeaderValue {
    let mut cookie = format!("{}={value}", config.name);
    let mut attribute = |name: &str, value: &dyn std::fmt::Display| {
        write!(cookie, "; {name}={value}").expect("a string takes all");
    };
    if let Some(max_age) = config.max_age {
        attribute("Max-Age", &max_age.as_secs());
    }
    if let Some(domain) = &config.domain {
        attribute("Domain", domain);
    }
    if !config.path.is_empty() {
        attribute("Path", &config.path);
    }
    for (name, is_set) in [
        ("; HttpOnly", config.http_only),
        ("; Secure", config.secure),
        ("; Partitioned", config.partitioned),
    ] {
        if is_set {
            cookie.push_str(name);
        }
    }
    cookie.push_str(match config.priority {
        None => "",
        Some(CookiePriority::Low) => "; Priority=Low",
        Some(CookiePriority::Medium) => "; Priority=Medium",
        Some(CookiePriority::High) => "; Priority=High",
    });
    cookie.push_str(match config.same_site {
        SameSite::Lax => "; SameSite=Lax",
        SameSite::Strict => "; SameSite=Strict",
        SameSite::None => "; SameSite=None",
        SameSite::Unset => "",
    });
    HeaderValue::try_from(cookie).expect("the settings allow ASCII only")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn cookie(config: &CookieConfig) -> String {
        let sid = Sid::new(7, *b"ninebytes");
        let cookie = set_cookie(config, sid).to_str().unwrap().to_owned();
        cookie.replace(&sid.to_string(), "SID")
    }

    #[test]
    fn defaults_are_the_official_ones() {
        let config = CookieConfig::default();
        assert_eq!(cookie(&config), "io=SID; Path=/; HttpOnly; SameSite=Lax");
    }

    #[test]
    fn all_attributes_come_in_the_order_of_npm_cookie() {
        let config = CookieConfig {
            name: "affinity".to_owned(),
            path: "/chat".to_owned(),
            domain: Some("example.com".to_owned()),
            max_age: Some(Duration::from_secs(3600)),
            http_only: true,
            secure: true,
            partitioned: true,
            priority: Some(CookiePriority::High),
            same_site: SameSite::None,
        };
        assert_eq!(
            cookie(&config),
            "affinity=SID; Max-Age=3600; Domain=example.com; Path=/chat; HttpOnly; Secure; Partitioned; \
             Priority=High; SameSite=None"
        );
    }

    #[test]
    fn attributes_can_be_left_out() {
        let config = CookieConfig {
            path: String::new(),
            http_only: false,
            same_site: SameSite::Unset,
            ..CookieConfig::default()
        };
        assert_eq!(cookie(&config), "io=SID");
    }
}
