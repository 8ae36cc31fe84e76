use std::sync::LazyLock;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{KeyPair, RSA_PKCS1_SHA256, RSA_PKCS1_SHA512, RsaEncoding, RsaKeyPair};
use serde_json::json;

use super::*;

const ISSUER: &str = "https://team.example";
const NOW: u64 = 1_800_000_000;

/// Making keys is slow.
static PAIR: LazyLock<RsaKeyPair> = LazyLock::new(|| RsaKeyPair::generate(KeySize::Rsa2048).unwrap());
static OTHER: LazyLock<RsaKeyPair> = LazyLock::new(|| RsaKeyPair::generate(KeySize::Rsa2048).unwrap());

fn base64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The numbers stand at fixed places in the DER form of a public key of 2048 bits.
fn published(pair: &RsaKeyPair, id: &str) -> Value {
    let der = pair.public_key().as_ref();
    let (n, e) = (&der[9..265], &der[der.len() - 3..]);
    json!({ "kid": id, "kty": "RSA", "alg": "RS256", "use": "sig", "n": base64(n), "e": base64(e) })
}

fn keys(list: &[Value]) -> Keys {
    Keys::from_json(json!({ "keys": list }).to_string().as_bytes()).unwrap()
}

fn signed_with(pair: &RsaKeyPair, encoding: &'static dyn RsaEncoding, header: &str, claims: &str) -> String {
    let message = format!("{}.{}", base64(header), base64(claims));
    let mut signature = vec![0; pair.public_modulus_len()];
    pair.sign(encoding, &SystemRandom::new(), message.as_bytes(), &mut signature).unwrap();
    format!("{message}.{}", base64(signature))
}

fn signed(header: &str, claims: &str) -> String {
    signed_with(&PAIR, &RSA_PKCS1_SHA256, header, claims)
}

const HEAD: &str = r#"{"alg":"RS256","kid":"one","typ":"JWT"}"#;

fn claims() -> Value {
    json!({ "iss": ISSUER, "aud": ["x", "app"], "exp": NOW + 60, "nbf": NOW, "email": "ada@example.test" })
}

/// Claims that say this besides.
fn but(name: &str, value: &Value) -> String {
    let mut claims = claims();
    claims[name] = value.clone();
    signed(HEAD, &claims.to_string())
}

fn without(name: &str) -> String {
    let mut claims = claims();
    claims.as_object_mut().unwrap().remove(name);
    signed(HEAD, &claims.to_string())
}

fn verdict(token: &str) -> Result<(), Denial> {
    verdict_by(&keys(&[published(&OTHER, "zero"), published(&PAIR, "one")]), token)
}

fn verdict_by(keys: &Keys, token: &str) -> Result<(), Denial> {
    let now = UNIX_EPOCH + Duration::from_secs(NOW);
    Assertion::decode(token)?.verify(keys, &Demands { issuer: ISSUER, audiences: &["app".to_owned()] }, now)
}

#[test]
fn what_an_assertion_says_is_checked() {
    let cases = [
        (signed(HEAD, &claims().to_string()), Ok(())),
        (but("aud", &json!("app")), Ok(())),
        (but("exp", &json!(NOW as f64 + 0.5)), Ok(())),
        (without("nbf"), Ok(())),
        (but("nbf", &json!(NOW + 299)), Ok(())),
        (but("nbf", &json!(NOW + 301)), Err(Denial::Early)),
        (but("exp", &json!(NOW)), Err(Denial::Expired)),
        (but("exp", &json!(-1)), Err(Denial::Expired)),
        (but("exp", &json!("never")), Err(Denial::Malformed)),
        (without("exp"), Err(Denial::Malformed)),
        (but("aud", &json!("another")), Err(Denial::Audience)),
        (but("aud", &json!([])), Err(Denial::Audience)),
        (without("aud"), Err(Denial::Malformed)),
        (but("iss", &json!("https://team.example/")), Err(Denial::Issuer)),
        (without("iss"), Err(Denial::Malformed)),
        (signed(HEAD, r#"["https://team.example","app",9999999999]"#), Err(Denial::Malformed)),
        (signed(HEAD, "{}"), Err(Denial::Malformed)),
    ];
    for (index, (token, expected)) in cases.iter().enumerate() {
        assert_eq!(verdict(token), *expected, "case {index}");
    }
}

#[test]
fn the_signature_must_be_of_a_published_key() {
    let claims = claims().to_string();
    let good = signed(HEAD, &claims);
    let head = |text: &str| signed(text, &claims);
    assert_eq!(verdict(&head(r#"{"alg":"RS256"}"#)), Ok(()), "without a key's name each is tried");
    assert_eq!(verdict(&head(r#"{"alg":"RS256","kid":"zero"}"#)), Err(Denial::Signature));
    assert_eq!(verdict(&head(r#"{"alg":"RS256","kid":"two"}"#)), Err(Denial::UnknownKey));
    assert_eq!(verdict_by(&keys(&[published(&OTHER, "one")]), &good), Err(Denial::Signature));
    let another = signed_with(&PAIR, &RSA_PKCS1_SHA512, HEAD, &claims);
    assert_eq!(verdict(&another), Err(Denial::Signature), "of another algorithm than it says");
    let (rest, _) = good.rsplit_once('.').unwrap();
    assert_eq!(verdict(&format!("{rest}.")), Err(Denial::Signature));
    let (head, rest) = good.split_once('.').unwrap();
    let (_, signature) = rest.split_once('.').unwrap();
    let forged = claims.replace("ada", "eve");
    assert_eq!(verdict(&format!("{head}.{}.{signature}", base64(forged))), Err(Denial::Signature));
}

#[test]
fn no_other_algorithm_is_taken() {
    let claims = claims().to_string();
    for alg in ["none", "None", "HS256", "RS512", "ES256", ""] {
        assert_eq!(verdict(&signed(&format!(r#"{{"alg":"{alg}","kid":"one"}}"#), &claims)), Err(Denial::Algorithm));
    }
    let critical = signed(r#"{"alg":"RS256","kid":"one","crit":["exp"]}"#, &claims);
    assert_eq!(verdict(&critical), Err(Denial::Algorithm));
}

#[test]
fn what_is_no_token_is_malformed() {
    let good = signed(HEAD, &claims().to_string());
    let large = "a".repeat(MAX_ASSERTION);
    for token in [
        "",
        ".",
        "..",
        "a.b",
        "a.b.c",
        "....",
        &format!("{good}."),
        &format!("{good}="),
        &format!(" {good}"),
        &format!(".{good}"),
        &good.replace('.', "+."),
        &large,
        &format!("{good}{large}"),
        &signed(r#"{"alg":7}"#, "{}"),
        &signed(r#"["RS256"]"#, "{}"),
        &signed(r#"{"alg":"RS256","alg":"RS256"}"#, "{}"),
    ] {
        assert_eq!(verdict(token), Err(Denial::Malformed), "{token}");
    }
}

#[test]
fn a_set_holds_the_keys_that_can_be_used() {
    let good = published(&PAIR, "one");
    let changed = |name: &str, value: Value| {
        let mut key = good.clone();
        key[name] = value;
        key
    };
    let read = |list: &[Value]| Keys::from_json(json!({ "keys": list }).to_string().as_bytes());
    let other = [
        changed("kty", json!("EC")),
        changed("alg", json!("RS512")),
        changed("use", json!("enc")),
        changed("n", json!(base64([0xFF; 128]))),
        changed("n", json!("?")),
        changed("e", json!("")),
        json!({ "kty": "OKP", "crv": "Ed25519", "x": "AA" }),
    ];
    for key in &other {
        assert!(matches!(read(std::slice::from_ref(key)), Err(super::super::KeysError::None)), "{key}");
    }
    let mixed = read(&[other.as_slice(), std::slice::from_ref(&good)].concat()).unwrap();
    assert!(mixed.has(Some("one")) && mixed.has(None) && !mixed.has(Some("two")));
    let n = URL_SAFE_NO_PAD.decode(good["n"].as_str().unwrap()).unwrap();
    let padded = keys(&[changed("n", json!(base64([vec![0], n].concat())))]);
    assert_eq!(verdict_by(&padded, &signed(HEAD, &claims().to_string())), Ok(()), "zeros in front count for nothing");
    assert!(read(&vec![good; 33]).unwrap_err().to_string().contains("33 keys"));
    for text in ["", "[]", "{}", r#"{"keys":7}"#, "<html>"] {
        assert!(Keys::from_json(text.as_bytes()).unwrap_err().to_string().contains("Key Set"), "{text}");
    }
}
