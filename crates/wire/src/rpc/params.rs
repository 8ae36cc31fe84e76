//! Parameters and results of the methods, to and from this crate's types. What comes from outside is bounded here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use capnp::{any_pointer, text};
use uuid::Uuid;

use super::ProtocolError;
use crate::identity::TunnelSecret;
use crate::registration::{Refused, Registered, Registration};
use crate::schema::tunnel_capnp::{
    connection_response, extended_registration_results, register_connection_params, register_connection_results,
    update_configuration_results,
};

/// Bytes of an account tag, a feature, a version and the like. The longest in use has 36.
const MAX_NAME: usize = 256;
/// Bytes of a tunnel secret; 32 are usual.
const MAX_SECRET: usize = 1024;
/// Features of one agent; the reference has fewer than ten.
const MAX_FEATURES: u32 = 64;
/// Bytes of an authority's certificate as text; one has less than a tenth of that.
const MAX_AUTHORITY: usize = 16 << 10;
/// Bytes of a text for people; what is longer is cut.
const MAX_SENTENCE: usize = 1024;

pub(super) fn write_registration(registration: &Registration, params: register_connection_params::Builder<'_>) {
    let mut params = params;
    params.set_conn_index(registration.connection_index);
    let mut auth = params.reborrow().init_auth();
    auth.set_account_tag(registration.account_tag.as_str());
    auth.set_tunnel_secret(registration.secret.as_bytes());
    params.set_tunnel_id(registration.tunnel.as_bytes());
    let mut options = params.init_options();
    options.set_num_previous_attempts(registration.previous_attempts);
    let mut client = options.reborrow().init_client();
    client.set_client_id(registration.connector.as_bytes());
    let count = u32::try_from(registration.features.len()).expect("an agent has a handful of features");
    let mut features = client.reborrow().init_features(count);
    for (index, feature) in (0..).zip(&registration.features) {
        features.set(index, feature.as_str());
    }
    client.set_version(registration.version.as_str());
    client.set_arch(registration.arch.as_str());
    if let Some(address) = registration.origin_local_ip {
        let address = match address {
            IpAddr::V4(address) => address.to_ipv6_mapped(),
            IpAddr::V6(address) => address,
        };
        options.set_origin_local_ip(&address.octets());
    }
}

pub(super) fn read_registration(params: register_connection_params::Reader<'_>) -> Result<Registration, ProtocolError> {
    let auth = params.get_auth()?;
    let options = params.get_options()?;
    let client = options.get_client()?;
    let secret = auth.get_tunnel_secret()?;
    if secret.len() > MAX_SECRET {
        return Err(ProtocolError::new(format!("the tunnel secret has more than {MAX_SECRET} bytes")));
    }
    let features = client.get_features()?;
    if features.len() > MAX_FEATURES {
        return Err(ProtocolError::new(format!("there are more than {MAX_FEATURES} features")));
    }
    Ok(Registration {
        account_tag: name("account tag", auth.get_account_tag()?)?,
        secret: TunnelSecret::new(secret.to_vec()),
        tunnel: uuid("tunnel id", params.get_tunnel_id()?)?,
        connection_index: params.get_conn_index(),
        connector: uuid("client id", client.get_client_id()?)?,
        features: features.iter().map(|feature| name("feature", feature?)).collect::<Result<_, _>>()?,
        version: name("version", client.get_version()?)?,
        arch: name("architecture", client.get_arch()?)?,
        origin_local_ip: address(options.get_origin_local_ip()?),
        previous_attempts: options.get_num_previous_attempts(),
    })
}

pub(super) fn write_registered(answer: &Result<Registered, Refused>, results: any_pointer::Builder<'_>) {
    let origin_ca = answer.as_ref().ok().and_then(|registered| registered.origin_ca.as_deref());
    let response = match origin_ca {
        None => results.init_as::<register_connection_results::Builder<'_>>().init_result(),
        Some(origin_ca) => {
            let mut results = results.init_as::<extended_registration_results::Builder<'_>>();
            results.set_origin_ca(origin_ca);
            results.init_result()
        }
    };
    let result = response.init_result();
    match answer {
        Ok(registered) => {
            let mut details = result.init_connection_details();
            details.set_uuid(registered.connection.as_bytes());
            details.set_location_name(registered.location.as_str());
            details.set_tunnel_is_remotely_managed(registered.remotely_managed);
        }
        Err(refused) => {
            let mut error = result.init_error();
            error.set_cause(refused.cause.as_str());
            error.set_should_retry(refused.retry_after.is_some());
            let nanoseconds = refused.retry_after.unwrap_or_default().as_nanos();
            error.set_retry_after(i64::try_from(nanoseconds).unwrap_or(i64::MAX));
        }
    }
}

pub(super) fn read_registered(
    results: extended_registration_results::Reader<'_>,
) -> Result<Result<Registered, Refused>, ProtocolError> {
    let result = results.get_result()?.get_result();
    match result.which() {
        Ok(connection_response::result::ConnectionDetails(details)) => {
            let details = details?;
            Ok(Ok(Registered {
                connection: uuid("connection uuid", details.get_uuid()?)?,
                location: name("location name", details.get_location_name()?)?,
                remotely_managed: details.get_tunnel_is_remotely_managed(),
                origin_ca: authority(results.get_origin_ca()?)?,
            }))
        }
        Ok(connection_response::result::Error(error)) => {
            let error = error?;
            // A time in the past means at once.
            let after = Duration::from_nanos(u64::try_from(error.get_retry_after()).unwrap_or(0));
            Ok(Err(Refused {
                cause: sentence(error.get_cause()?),
                retry_after: error.get_should_retry().then_some(after),
            }))
        }
        Err(unknown) => {
            Err(ProtocolError::new(format!("the answer to a registration is of an unknown kind: {unknown}")))
        }
    }
}

pub(super) fn write_update_result(
    answer: &Result<i32, (i32, String)>,
    results: update_configuration_results::Builder<'_>,
) {
    let mut result = results.init_result();
    match answer {
        Ok(version) => result.set_latest_applied_version(*version),
        Err((version, reason)) => {
            result.set_latest_applied_version(*version);
            // An empty text would read as success.
            result.set_err(if reason.is_empty() { "the configuration was refused" } else { reason.as_str() });
        }
    }
}

pub(super) fn read_update_result(
    results: update_configuration_results::Reader<'_>,
) -> Result<Result<i32, (i32, String)>, ProtocolError> {
    let result = results.get_result()?;
    let version = result.get_latest_applied_version();
    let reason = result.get_err()?;
    Ok(if reason.as_bytes().is_empty() { Ok(version) } else { Err((version, sentence(reason))) })
}

/// A text for people: cut to a length that fits a log, without control characters.
pub(super) fn sentence(text: text::Reader<'_>) -> String {
    let bytes = text.as_bytes();
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(MAX_SENTENCE)]);
    text.replace(char::is_control, " ")
}

fn name(what: &'static str, text: text::Reader<'_>) -> Result<String, ProtocolError> {
    match text.to_str() {
        Ok(text) if text.len() > MAX_NAME => {
            Err(ProtocolError::new(format!("the {what} has more than {MAX_NAME} bytes")))
        }
        Ok(text) if !text.contains(char::is_control) => Ok(text.to_owned()),
        _ => Err(ProtocolError::new(format!("the {what} is not a printable text"))),
    }
}

fn authority(text: text::Reader<'_>) -> Result<Option<String>, ProtocolError> {
    match text.to_str() {
        Ok("") => Ok(None),
        Ok(pem) if pem.len() <= MAX_AUTHORITY => Ok(Some(pem.to_owned())),
        _ => Err(ProtocolError::new(format!("the origins' authority is no text of at most {MAX_AUTHORITY} bytes"))),
    }
}

pub(super) fn uuid(what: &'static str, bytes: &[u8]) -> Result<Uuid, ProtocolError> {
    Uuid::from_slice(bytes)
        .map_err(|_| ProtocolError::new(format!("the {what} has {} bytes instead of 16", bytes.len())))
}

/// The address, if it is one.
pub(super) fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(octets) = <[u8; 4]>::try_from(bytes) {
        return Some(Ipv4Addr::from(octets).into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(|octets| Ipv6Addr::from(octets).to_canonical())
}
