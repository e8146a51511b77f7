//! Which proxies are believed about the clients in front of them.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// Whose `X-Forwarded-For` and `X-Forwarded-Proto` count. A client can send these headers as well,
/// so that nobody is believed who is not known to be a proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Form", into = "Form")]
pub enum TrustProxy {
    #[default]
    Nobody,
    /// Whoever connects is a proxy, and has clients in front of it: for nodes that nobody else can
    /// reach. What that proxy was told by another one is not believed.
    Everybody,
    /// Proxies in these networks, in a chain of any length.
    Networks(Vec<IpNet>),
}

/// As the configuration has it.
#[derive(Clone, Serialize, Deserialize)]
#[serde(untagged, expecting = "must be true, false or a list of addresses and networks")]
enum Form {
    Switch(bool),
    One(String),
    Many(Vec<String>),
}

/// What is no address and no network.
#[derive(Debug, thiserror::Error)]
#[error("\"{0}\" is no address and no network such as 10.0.0.0/8")]
struct NoNetwork(String);

impl TryFrom<Form> for TrustProxy {
    type Error = NoNetwork;

    fn try_from(form: Form) -> Result<Self, NoNetwork> {
        let networks = match form {
            Form::Switch(false) => return Ok(Self::Nobody),
            Form::Switch(true) => return Ok(Self::Everybody),
            // As an environment variable has it.
            Form::One(list) => list.split(',').map(network).collect::<Result<_, _>>(),
            Form::Many(list) => list.iter().map(|text| network(text)).collect(),
        };
        networks.map(Self::Networks)
    }
}

impl From<TrustProxy> for Form {
    fn from(trust: TrustProxy) -> Self {
        match trust {
            TrustProxy::Nobody => Self::Switch(false),
            TrustProxy::Everybody => Self::Switch(true),
            TrustProxy::Networks(networks) => {
                Self::Many(networks.iter().map(ToString::to_string).collect())
            }
        }
    }
}

fn network(text: &str) -> Result<IpNet, NoNetwork> {
    let text = text.trim();
    let address = text.parse::<IpAddr>().map(IpNet::from);
    address.or_else(|_| text.parse()).map_err(|_| NoNetwork(text.to_owned()))
}

impl TrustProxy {
    pub fn trusts(&self, peer: IpAddr) -> bool {
        match self {
            Self::Nobody => false,
            Self::Everybody => true,
            Self::Networks(networks) => {
                let peer = peer.to_canonical();
                networks.iter().any(|network| network.contains(&peer))
            }
        }
    }

    /// The client of a stream from `peer`: the last one in `forwarded_for`, the values of
    /// `X-Forwarded-For` in their order, whom a trusted proxy named and who is none itself.
    ///
    /// Its port is 0, unless it is the peer or its proxy tells the port as well.
    pub fn client<'a>(
        &self,
        peer: SocketAddr,
        forwarded_for: impl DoubleEndedIterator<Item = &'a str>,
    ) -> SocketAddr {
        let mut client = peer;
        let named = forwarded_for.rev().flat_map(|value| value.rsplit(','));
        for name in named {
            if !self.trusts(client.ip()) {
                break;
            }
            // What is no address, such as "unknown", is said of someone behind the proxy.
            let Some(address) = address(name.trim()) else { break };
            client = address;
            if *self == Self::Everybody {
                break;
            }
        }
        client
    }

    /// Whether the client of a stream from `peer` came by TLS: as its proxy says, in the last value
    /// of `X-Forwarded-Proto`, or else as the stream itself does.
    pub fn is_secure(
        &self,
        peer: IpAddr,
        forwarded_proto: Option<&str>,
        is_stream_secure: bool,
    ) -> bool {
        match forwarded_proto.filter(|_| self.trusts(peer)) {
            Some(value) => {
                let scheme = value.rsplit(',').next().unwrap_or_default().trim();
                scheme.eq_ignore_ascii_case("https") || scheme.eq_ignore_ascii_case("wss")
            }
            None => is_stream_secure,
        }
    }
}

/// An address, which some proxies write with its port.
fn address(text: &str) -> Option<SocketAddr> {
    let unbracketed = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    match unbracketed.unwrap_or(text).parse::<IpAddr>() {
        Ok(ip) => Some(SocketAddr::new(ip, 0)),
        Err(_) => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trust(json: &str) -> TrustProxy {
        serde_json::from_str(json).unwrap()
    }

    fn client(trust: &TrustProxy, peer: &str, forwarded_for: &[&str]) -> String {
        let peer = SocketAddr::new(peer.parse().unwrap(), 1);
        trust.client(peer, forwarded_for.iter().copied()).to_string()
    }

    #[test]
    fn nobody_is_believed_unless_the_operator_says_so() {
        assert_eq!(trust("false"), TrustProxy::default());
        assert_eq!(client(&trust("false"), "10.0.0.1", &["1.2.3.4"]), "10.0.0.1:1");
        assert!(!trust("false").is_secure([10, 0, 0, 1].into(), Some("https"), false));
    }

    #[test]
    fn client_is_the_last_one_that_is_no_trusted_proxy() {
        let trust = trust(r#"["10.0.0.0/8", "192.168.0.7", "fd00::/8"]"#);
        let client = |peer, forwarded_for| client(&trust, peer, forwarded_for);
        assert_eq!(client("10.0.0.1", &["1.2.3.4"]), "1.2.3.4:0");
        assert_eq!(client("10.0.0.1", &["6.6.6.6, 1.2.3.4,10.9.9.9 , 192.168.0.7"]), "1.2.3.4:0");
        assert_eq!(client("10.0.0.1", &["6.6.6.6", "1.2.3.4", "fd00::5"]), "1.2.3.4:0");
        assert_eq!(client("::ffff:10.0.0.1", &["1.2.3.4:567"]), "1.2.3.4:567");
        assert_eq!(client("10.0.0.1", &["[2001:db8::1]"]), "[2001:db8::1]:0");
        assert_eq!(client("10.0.0.1", &["[2001:db8::1]:8"]), "[2001:db8::1]:8");
        // A client that lies, and proxies that do not know.
        assert_eq!(client("9.9.9.9", &["1.2.3.4"]), "9.9.9.9:1");
        assert_eq!(client("10.0.0.1", &["1.2.3.4, unknown"]), "10.0.0.1:1");
        assert_eq!(client("10.0.0.1", &[""]), "10.0.0.1:1");
        assert_eq!(client("10.0.0.1", &[]), "10.0.0.1:1");
        // All are proxies: the first is as far as one can see.
        assert_eq!(client("10.0.0.1", &["10.0.0.3, 10.0.0.2"]), "10.0.0.3:0");
    }

    #[test]
    fn whoever_connects_may_be_one_proxy_and_no_more() {
        assert_eq!(client(&trust("true"), "9.9.9.9", &["6.6.6.6, 1.2.3.4"]), "1.2.3.4:0");
    }

    #[test]
    fn proxies_tell_of_tls_by_their_last_word() {
        let trust = trust(r#""10.0.0.0/8, 192.168.0.7""#);
        let secure = |peer: [u8; 4], proto, own| trust.is_secure(peer.into(), proto, own);
        assert!(secure([10, 0, 0, 1], Some("https"), false));
        assert!(secure([192, 168, 0, 7], Some("http, WSS"), false));
        assert!(!secure([10, 0, 0, 1], Some("https, http"), true));
        assert!(!secure([9, 9, 9, 9], Some("https"), false));
        assert!(secure([9, 9, 9, 9], Some("http"), true));
        assert!(secure([10, 0, 0, 1], None, true));
    }

    #[test]
    fn what_is_no_network_is_refused_by_name() {
        let refused = serde_json::from_str::<TrustProxy>(r#"["10.0.0.0/8","balancer"]"#);
        assert!(refused.unwrap_err().to_string().contains("balancer"));
        let refused = serde_json::from_str::<TrustProxy>("7").unwrap_err().to_string();
        assert!(refused.contains("a list of addresses"), "{refused}");
        for form in ["true", "false", r#"["10.0.0.0/8","1.2.3.4/32"]"#] {
            assert_eq!(serde_json::to_string(&trust(form)).unwrap(), form);
        }
    }
}
