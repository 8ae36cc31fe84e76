use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{IdentityError, MAX_LENGTH, Object, decode_base64};

const BLOCK: &str = "ARGO TUNNEL TOKEN";
/// Blocks that files of old hold besides; they are passed over.
const PASSED_OVER: [&str; 2] = ["PRIVATE KEY", "CERTIFICATE"];
/// Letters of base64 in one line of a PEM block (RFC 7468 section 2).
const LINE: usize = 64;

/// The content of `cert.pem`: what the login command leaves behind, and what commands that manage tunnels need.
#[derive(Clone, PartialEq, Eq)]
pub struct OriginCert {
    /// The zone that hostnames are routed in.
    pub zone_id: String,
    /// Owner of the tunnels; needed by all commands, though a file of old may lack it.
    pub account_id: Option<String>,
    /// A secret: the bearer token of the API.
    pub api_token: String,
    /// Acts as the region; absent at most edges.
    pub endpoint: Option<String>,
}

impl OriginCert {
    /// Reads a `cert.pem`. Of several blocks of the right kind the last one counts.
    pub fn parse(pem: &[u8]) -> Result<Self, IdentityError> {
        if pem.len() > MAX_LENGTH {
            return Err(IdentityError::TooLong("cert.pem"));
        }
        let text = String::from_utf8_lossy(pem);
        let mut lines = text.lines().map(str::trim);
        let mut found = None;
        while let Some(line) = lines.next() {
            let Some(label) = label(line, "BEGIN") else { continue };
            let mut body = String::new();
            loop {
                let line = lines.next().ok_or(IdentityError::CutShort)?;
                if self::label(line, "END") == Some(label) {
                    break;
                }
                body.push_str(line);
            }
            if label == BLOCK {
                found = Some(body);
            } else if !PASSED_OVER.contains(&label) {
                return Err(IdentityError::UnknownBlock);
            }
        }
        let json = decode_base64(found.ok_or(IdentityError::NoBlock)?.as_bytes(), "the block in cert.pem")?;
        let object = Object::parse(&json, "the block in cert.pem")?;
        Ok(Self {
            zone_id: object.required("zoneID")?.to_owned(),
            account_id: object.optional("accountID")?.map(str::to_owned),
            api_token: object.required("apiToken")?.to_owned(),
            endpoint: object.optional("endpoint")?.map(str::to_owned),
        })
    }

    /// The content of `cert.pem`, secret included.
    pub fn to_pem(&self) -> String {
        let mut object = serde_json::json!({
            "zoneID": self.zone_id,
            "accountID": self.account_id.as_deref().unwrap_or_default(),
            "apiToken": self.api_token,
        });
        if let Some(endpoint) = &self.endpoint {
            object["endpoint"] = endpoint.as_str().into();
        }
        let body = STANDARD.encode(object.to_string());
        let mut pem = format!("-----BEGIN {BLOCK}-----\n");
        let mut rest = body.as_str();
        while !rest.is_empty() {
            let (line, after) = rest.split_at(LINE.min(rest.len()));
            pem.push_str(line);
            pem.push('\n');
            rest = after;
        }
        pem.push_str(&format!("-----END {BLOCK}-----\n"));
        pem
    }
}

impl fmt::Debug for OriginCert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OriginCert")
            .field("zone_id", &self.zone_id)
            .field("account_id", &self.account_id)
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

fn label<'a>(line: &'a str, edge: &str) -> Option<&'a str> {
    line.strip_prefix("-----")?.strip_suffix("-----")?.strip_prefix(edge)?.strip_prefix(' ')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cert() -> OriginCert {
        OriginCert {
            zone_id: "0123456789abcdef0123456789abcdef".into(),
            account_id: Some("fedcba9876543210fedcba9876543210".into()),
            api_token: "hidden-api-token".into(),
            endpoint: None,
        }
    }

    #[test]
    fn files_lead_back() {
        for endpoint in [None, Some("fed".to_owned())] {
            let cert = OriginCert { endpoint, ..cert() };
            let pem = cert.to_pem();
            assert!(pem.lines().all(|line| line.len() <= LINE), "{pem}");
            assert_eq!(OriginCert::parse(pem.as_bytes()), Ok(cert));
        }
    }

    #[test]
    fn files_of_old_hold_more_blocks() {
        let other = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n\
                     -----BEGIN CERTIFICATE-----\r\nAAAA\r\n-----END CERTIFICATE-----\r\n";
        let file = format!("{other}{}", cert().to_pem());
        assert_eq!(OriginCert::parse(file.as_bytes()), Ok(cert()));
        assert_eq!(OriginCert::parse(other.as_bytes()), Err(IdentityError::NoBlock));
    }

    #[test]
    fn refusals() {
        let block = |kind: &str, json: &str| {
            format!("-----BEGIN {kind}-----\n{}\n-----END {kind}-----\n", STANDARD.encode(json))
        };
        for (pem, error) in [
            (String::new(), IdentityError::NoBlock),
            (block("RSA PRIVATE KEY", "{}"), IdentityError::UnknownBlock),
            (block(BLOCK, "nothing"), IdentityError::Json("the block in cert.pem")),
            (block(BLOCK, r#"{"zoneID":"","apiToken":"x"}"#), IdentityError::Missing("zoneID")),
            (block(BLOCK, r#"{"zoneID":"z","accountID":"a"}"#), IdentityError::Missing("apiToken")),
            (format!("-----BEGIN {BLOCK}-----\nAAAA\n"), IdentityError::CutShort),
            (format!("-----BEGIN {BLOCK}-----\n!\n-----END {BLOCK}-----"), {
                IdentityError::Base64("the block in cert.pem")
            }),
            (" ".repeat(MAX_LENGTH + 1), IdentityError::TooLong("cert.pem")),
        ] {
            assert_eq!(OriginCert::parse(pem.as_bytes()), Err(error), "{pem}");
        }
    }

    #[test]
    fn the_api_token_is_not_printed() {
        assert!(!format!("{:?}", cert()).contains("hidden"));
    }
}
