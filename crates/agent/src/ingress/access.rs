use serde::{Deserialize, Serialize};
use url::{Host, Url};

/// The `access` check (section 14.4).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct Access {
    /// Requests without a valid assertion are refused.
    pub required: bool,
    /// Who signs it: the name of a team at the hosted service, or the host or URL of one's own issuer.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub team_name: String,
    /// For whom it must be made out, one of them at least.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub aud_tag: Vec<String>,
    /// `fed` or nothing.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub environment: String,
}

impl Access {
    /// The URL of the issuer, without a slash at its end; `None` where none is named, which the reference allows: then
    /// nobody passes.
    ///
    /// # Errors
    /// Why `teamName` names no issuer.
    pub fn issuer(&self) -> Result<Option<String>, String> {
        let team = self.team_name.as_str();
        if team.is_empty() {
            return Ok(None);
        }
        if team.contains("://") {
            return issuer(team).map(Some);
        }
        if team.contains(['.', ':']) {
            return issuer(&format!("https://{team}")).map(Some);
        }
        if !team.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
            return Err(format!("access.teamName {team:?} is neither the name of a team nor a host nor a URL"));
        }
        let fed = if self.environment == "fed" { ".fed" } else { "" };
        Ok(Some(format!("https://{team}{fed}.cloudflareaccess.com")))
    }

    /// Why the check cannot be made as it is written, if so.
    pub(super) fn refusal(&self) -> Option<String> {
        if !self.required {
            return None;
        }
        if self.team_name.is_empty() && !self.aud_tag.is_empty() {
            return Some(
                "access.audTag says for whom assertions are, but access.teamName does not say of whom".to_owned(),
            );
        }
        self.issuer().err()
    }
}

fn issuer(text: &str) -> Result<String, String> {
    let wrong = |why: &str| format!("access.teamName {text:?}: {why}, as in https://login.example.com");
    let url = Url::parse(text).map_err(|_| wrong("write the issuer's host or URL"))?;
    let here = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    match url.scheme() {
        "https" => {}
        "http" if here => {}
        "http" => return Err(wrong("keys that come without TLS prove nothing, except on this machine; write https")),
        _ => return Err(wrong("write an https URL")),
    }
    let plain =
        url.username().is_empty() && url.password().is_none() && url.query().is_none() && url.fragment().is_none();
    if !plain {
        return Err(wrong("an issuer's URL has no name, password, query or fragment"));
    }
    let name = text.trim_end_matches('/');
    // What stands here is compared with what assertions say, letter by letter.
    let usual = url.as_str().trim_end_matches('/');
    if name != usual {
        return Err(format!("access.teamName {text:?}: write it in its usual form, {usual}"));
    }
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_issuer_is_a_team_a_host_or_a_url() {
        for (team, environment, expected) in [
            ("acme", "", "https://acme.cloudflareaccess.com"),
            ("acme", "fed", "https://acme.fed.cloudflareaccess.com"),
            ("login.example.com", "fed", "https://login.example.com"),
            ("login.example.com:8443", "", "https://login.example.com:8443"),
            ("https://login.example.com/people/", "", "https://login.example.com/people"),
            ("http://127.0.0.1:9000", "", "http://127.0.0.1:9000"),
            ("http://[::1]:9000", "", "http://[::1]:9000"),
        ] {
            let access =
                Access { team_name: team.to_owned(), environment: environment.to_owned(), ..Access::default() };
            assert_eq!(access.issuer(), Ok(Some(expected.to_owned())));
        }
        assert_eq!(Access::default().issuer(), Ok(None));
        for team in [
            "a b",
            "a/b",
            "http://login.example.com",
            "ftp://a",
            "https://",
            "https://a@b",
            "https://a/?b",
            "é",
            "https:http://127.0.0.1",
            "https://A.test",
        ] {
            let access = Access { team_name: team.to_owned(), ..Access::default() };
            assert!(access.issuer().unwrap_err().contains("teamName"), "{team}");
        }
    }

    #[test]
    fn a_check_of_assertions_of_nobody_is_a_mistake() {
        let audiences = || vec!["a".to_owned()];
        let access = |required, team_name: &str, aud_tag| Access {
            required,
            team_name: team_name.to_owned(),
            aud_tag,
            ..Access::default()
        };
        assert!(access(true, "", audiences()).refusal().is_some());
        assert_eq!(access(false, "", audiences()).refusal(), None);
        assert_eq!(access(true, "", Vec::new()).refusal(), None);
        assert_eq!(access(true, "team", audiences()).refusal(), None);
        assert!(access(true, "http://example.com", audiences()).refusal().is_some());
    }
}
