use std::fmt;
use std::net::IpAddr;

use http::uri::Authority;

/// etcd's own.
const DEFAULT_PORT: u16 = 2379;
/// Under which everything is kept when the address names nothing.
const DEFAULT_PREFIX: &str = "/snicket";
/// Each key has it in front, in each message.
const MAX_PREFIX: usize = 128;
/// Clusters have 3 or 5 members, 7 at most; beside them there may be proxies.
const MAX_MEMBERS: usize = 32;

/// Where etcd is, under which prefix, and how a node shows there who it is. A value is well-formed.
#[derive(Debug, Clone)]
pub struct EtcdSettings {
    pub(super) members: Vec<Authority>,
    pub(in crate::engine) prefix: String,
    pub(super) tls: Option<EtcdTls>,
    pub(super) login: Option<EtcdLogin>,
}

/// TLS towards etcd. Files are the caller's; these are their contents.
#[derive(Debug, Clone, Default)]
pub struct EtcdTls {
    /// Certificates of the authority that signed the members', as PEM; `None`: those that the system trusts.
    pub ca: Option<Vec<u8>>,
    /// What the members ask for (`--client-cert-auth`); `None`: nothing.
    pub identity: Option<EtcdIdentity>,
}

/// A certificate for clients of etcd. Its key does not print.
#[derive(Clone)]
pub struct EtcdIdentity {
    /// The certificate and those between it and the authority, as PEM.
    pub certificate: Vec<u8>,
    /// Its private key, as PEM.
    pub key: Vec<u8>,
}

impl fmt::Debug for EtcdIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EtcdIdentity(…)")
    }
}

/// A user of etcd's own user table. The password does not print.
#[derive(Clone)]
pub struct EtcdLogin {
    /// The user's name.
    pub user: String,
    /// The user's password.
    pub password: String,
}

impl fmt::Debug for EtcdLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EtcdLogin({}, …)", self.user)
    }
}

/// Why settings for etcd are of no use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadEtcdSettings {
    /// The address is not well-formed.
    #[error("{address:?} is no address of etcd: {problem}; write etcd://HOST:PORT[,HOST:PORT]/PREFIX")]
    Address {
        /// As given.
        address: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// Secrets would travel readable.
    #[error(
        "{member} is another machine, and without TLS everybody on the way could read the registry's secrets; give etcd a \
         certificate and name its authority, or use a member on loopback"
    )]
    Plaintext {
        /// The first such member.
        member: String,
    },
    /// A certificate or key is of no use.
    #[error("the TLS settings for etcd are of no use: {problem}")]
    Tls {
        /// What is wrong.
        problem: String,
    },
}

impl EtcdSettings {
    /// Reads `etcd://HOST:PORT[,HOST:PORT…][/PREFIX]`. The port may be missing (2379), as may the prefix (`/snicket`).
    /// A user or password has no place in it, since addresses are seen by everybody who may list processes.
    ///
    /// # Errors
    /// It is something else.
    pub fn parse(address: &str) -> Result<Self, BadEtcdSettings> {
        let bad = |problem| BadEtcdSettings::Address { address: address.to_owned(), problem };
        let rest = address.strip_prefix("etcd://").ok_or_else(|| bad("it does not begin with etcd://"))?;
        let (hosts, path) = match rest.find('/') {
            Some(slash) => rest.split_at(slash),
            None => (rest, ""),
        };
        if hosts.contains('@') {
            return Err(bad("it has a user in it, which belongs into settings that are kept secret"));
        }
        let members = hosts.split(',').map(|host| member(host).ok_or_else(|| bad("a member is not HOST:PORT")));
        let members = members.collect::<Result<Vec<_>, _>>()?;
        if members.len() > MAX_MEMBERS {
            return Err(bad("it has more than 32 members"));
        }
        let prefix = match path.trim_end_matches('/') {
            "" => DEFAULT_PREFIX,
            path => path,
        };
        if prefix.len() > MAX_PREFIX || !prefix[1..].split('/').all(is_segment) {
            return Err(bad(
                "the prefix may have letters, digits and the characters . _ - between slashes, and 128 in all",
            ));
        }
        Ok(Self { members, prefix: prefix.to_owned(), tls: None, login: None })
    }

    /// How TLS is spoken to the members, if it is.
    pub fn tls(&self) -> Option<&EtcdTls> {
        self.tls.as_ref()
    }

    /// With TLS to all members. Without it only members on loopback are taken.
    pub fn with_tls(self, tls: EtcdTls) -> Self {
        Self { tls: Some(tls), ..self }
    }

    /// As this user.
    pub fn with_login(self, login: EtcdLogin) -> Self {
        Self { login: Some(login), ..self }
    }

    /// Refuses what would send secrets readable over a network.
    pub(super) fn check_plaintext(&self) -> Result<(), BadEtcdSettings> {
        match self.members.iter().find(|member| self.tls.is_none() && !is_loopback(member.host())) {
            Some(member) => Err(BadEtcdSettings::Plaintext { member: member.to_string() }),
            None => Ok(()),
        }
    }
}

/// The address, as [`EtcdSettings::parse`] reads it.
impl fmt::Display for EtcdSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let members: Vec<&str> = self.members.iter().map(Authority::as_str).collect();
        write!(f, "etcd://{}{}", members.join(","), self.prefix)
    }
}

fn member(text: &str) -> Option<Authority> {
    let authority: Authority = text.parse().ok()?;
    let host = authority.host();
    if host.is_empty() {
        return None;
    }
    match text.strip_prefix(host)? {
        "" => format!("{host}:{DEFAULT_PORT}").parse().ok(),
        _ => authority.port_u16().filter(|port| *port != 0).map(|_| authority),
    }
}

fn is_segment(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse();
    host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address: IpAddr| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(address: &str) -> (Vec<String>, String) {
        let settings = EtcdSettings::parse(address).unwrap();
        (settings.members.iter().map(ToString::to_string).collect(), settings.prefix)
    }

    #[test]
    fn an_address_names_members_and_a_prefix() {
        assert_eq!(
            parsed("etcd://a:1,[::1]:2,c/one/two/"),
            (vec!["a:1".into(), "[::1]:2".into(), "c:2379".into()], "/one/two".into())
        );
        assert_eq!(parsed("etcd://127.0.0.1"), (vec!["127.0.0.1:2379".into()], "/snicket".into()));
        assert_eq!(parsed("etcd://127.0.0.1/").1, "/snicket");
        let written = EtcdSettings::parse("etcd://a:1,[::1]:2,c/one/two/").unwrap().to_string();
        assert_eq!(written, "etcd://a:1,[::1]:2,c:2379/one/two");
    }

    #[test]
    fn what_is_no_address_is_refused_with_the_reason() {
        let long = format!("etcd://a/{}", "p".repeat(200));
        let many = format!("etcd://a{}", ",b".repeat(40));
        let wrong = [
            ("http://a:1", "begin with"),
            ("etcd://", "HOST:PORT"),
            ("etcd://a,,b", "HOST:PORT"),
            ("etcd://a:0", "HOST:PORT"),
            ("etcd://a:99999", "HOST:PORT"),
            ("etcd://a:", "HOST:PORT"),
            ("etcd://a b", "HOST:PORT"),
            ("etcd://user:password@a", "user in it"),
            ("etcd://a//b", "prefix"),
            ("etcd://a/b?c", "prefix"),
            ("etcd://a/ü", "prefix"),
            (&long, "prefix"),
            (&many, "more than 32"),
        ];
        for (address, reason) in wrong {
            let refused = EtcdSettings::parse(address).unwrap_err().to_string();
            assert!(refused.contains(reason), "{address}: {refused}");
        }
    }

    #[test]
    fn without_tls_only_loopback_will_do() {
        for address in ["etcd://localhost", "etcd://127.9.9.9:1,[::1]:2"] {
            assert_eq!(EtcdSettings::parse(address).unwrap().check_plaintext(), Ok(()), "{address}");
        }
        for address in ["etcd://etcd.example", "etcd://127.0.0.1,10.0.0.1", "etcd://127.0.0.1.example"] {
            let settings = EtcdSettings::parse(address).unwrap();
            assert!(matches!(settings.check_plaintext(), Err(BadEtcdSettings::Plaintext { .. })), "{address}");
            assert_eq!(settings.with_tls(EtcdTls::default()).check_plaintext(), Ok(()), "{address}");
        }
    }

    #[test]
    fn secrets_do_not_print() {
        let login = EtcdLogin { user: "node".into(), password: "hunter2".into() };
        let tls =
            EtcdTls { ca: None, identity: Some(EtcdIdentity { certificate: b"c".to_vec(), key: b"hunter2".to_vec() }) };
        let settings = EtcdSettings::parse("etcd://a").unwrap().with_login(login).with_tls(tls);
        let printed = format!("{settings:?}");
        assert!(printed.contains("node") && !printed.contains("hunter2") && !printed.contains("104"), "{printed}");
    }
}
