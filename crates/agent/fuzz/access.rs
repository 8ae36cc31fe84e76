//! What the fuzz target and the replay of its corpus do with one input.

use std::time::{Duration, UNIX_EPOCH};

use agent::access::{Assertion, Demands, Keys, MAX_ASSERTION};
use agent::ingress::Access;

/// One key, of RFC 7515, appendix A.2.
const KEYS: &str = concat!(
    r#"{"keys":[{"kid":"a","kty":"RSA","n":"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQ"#,
    r#"p-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL"#,
    r#"-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I"#,
    r#"5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ","e":"AQAB"}]}"#,
);

/// Reads the input as an assertion, as keys and as the name of an issuer. No assertion that fuzzing makes is signed
/// with the key, so none may pass.
pub(crate) fn access(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let ours = Keys::from_json(KEYS.as_bytes()).expect("the constant is a set of keys");
    let theirs = Keys::from_json(data).ok();
    if let Ok(assertion) = Assertion::decode(&text) {
        assert!(text.len() <= MAX_ASSERTION);
        let audiences = [text.clone().into_owned(), "app".to_owned()];
        let demands = Demands { issuer: "https://team.example", audiences: &audiences };
        for keys in [Some(&ours), theirs.as_ref()].into_iter().flatten() {
            let verdict = assertion.verify(keys, &demands, UNIX_EPOCH + Duration::from_secs(1_800_000_000));
            assert!(verdict.is_err(), "an assertion that nobody signed passes: {text}");
        }
    }
    let access = Access { required: true, team_name: text.into_owned(), ..Access::default() };
    if let Ok(Some(issuer)) = access.issuer() {
        assert!(issuer.starts_with("https://") || issuer.starts_with("http://"), "{issuer}");
    }
}
