//! Origins that serve the same. Pure.

use std::collections::HashSet;
use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};
use uuid::Uuid;

use super::number::{fraction, some_fraction, usual_weight, whole};
use super::region::check_region;
use super::{BadTerms, LabelSteering, MAX_DESCRIPTION_CHARS, check_number, check_share, check_text};
use crate::resource::{Key, Resource};
use crate::{Hostname, Labels, MonitorId, PoolId, Record};

/// Origins that serve the same.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pool {
    /// Names it for good.
    pub id: PoolId,
    /// What it consists of.
    #[serde(flatten)]
    pub terms: PoolTerms,
    /// When.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub modified_at: Timestamp,
    /// Since when it is switched off; `None`: it is on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disabled_at: Option<Timestamp>,
}

impl Resource for Pool {
    const KIND: &'static str = "pools";

    fn key(&self) -> Key {
        Key::new(Self::KIND, &self.id)
    }
}

/// What a pool consists of, in the members of the API.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PoolTerms {
    /// Unique: letters, digits, `-` and `_`.
    pub name: Box<str>,
    /// May be none, as long as nobody serves it.
    pub origins: Vec<Origin>,
    /// Whether anybody is led there.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// With fewer that are well, the pool is not.
    #[serde(default = "one", deserialize_with = "whole")]
    pub minimum_origins: u32,
    /// How the origins are asked for their health.
    #[serde(default, deserialize_with = "some_text")]
    pub monitor: Option<MonitorId>,
    /// Kept as it is given.
    #[serde(default)]
    pub monitor_group: Option<Box<str>>,
    /// From which regions they are asked; `None`: from everywhere.
    #[serde(default)]
    pub check_regions: Option<Vec<Box<str>>>,
    /// In degrees, where visitors are led to the nearest pool.
    #[serde(default, deserialize_with = "some_fraction")]
    pub latitude: Option<f64>,
    /// In degrees, where visitors are led to the nearest pool.
    #[serde(default, deserialize_with = "some_fraction")]
    pub longitude: Option<f64>,
    /// Whom the pool does without.
    #[serde(default)]
    pub load_shedding: LoadShedding,
    /// How one of the origins is chosen.
    #[serde(default)]
    pub origin_steering: OriginSteering,
    /// Which share of the visitors those with each value of a label get; `None`: labels do not matter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label_steering: Option<LabelSteering>,
    /// Who is told when something fails, with commas between.
    #[serde(default)]
    pub notification_email: Box<str>,
    /// What is told.
    #[serde(default)]
    pub notification_filter: Option<NotificationFilter>,
    /// For people.
    #[serde(default)]
    pub description: Box<str>,
}

/// One place that serves.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Origin {
    /// For people; unique in the pool unless it is empty.
    #[serde(default)]
    pub name: Box<str>,
    /// An IP address or a host name; `<tunnel id>.cfargotunnel.com` for one behind a tunnel.
    pub address: Box<str>,
    /// 0: that of the protocol.
    #[serde(default, deserialize_with = "whole")]
    pub port: u16,
    /// The share of visitors that it gets, compared with those of the others: 0 to 1.
    #[serde(default = "usual_weight", deserialize_with = "fraction")]
    pub weight: f64,
    /// Whether anybody is led there.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// Since when nobody is, by the registry's own account; whatever is sent in is passed over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disabled_at: Option<Timestamp>,
    /// What the origin is told of the host.
    #[serde(default)]
    pub header: OriginHeader,
    /// The private network in which the address is.
    #[serde(default)]
    pub virtual_network_id: Option<Uuid>,
    /// The host name is answered with the addresses that it leads to.
    #[serde(default)]
    pub flatten_cname: bool,
    /// What is said of it, before what is said of its tunnel.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
}

impl Origin {
    /// What makes it another one than the others of the pool.
    fn place(&self) -> (&str, u16, &OriginHeader, Option<Uuid>) {
        (&self.address, self.port, &self.header, self.virtual_network_id)
    }

    /// The tunnel behind which it is, if it is behind one.
    pub fn tunnel(&self) -> Option<Uuid> {
        Record::tunnel_of_target(&self.address)
    }
}

/// The header that requests to an origin get.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct OriginHeader {
    /// Instead of the visitor's.
    #[serde(rename = "Host", alias = "host", default, skip_serializing_if = "Vec::is_empty")]
    pub host: Vec<Box<str>>,
}

/// Whom a pool does without.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct LoadShedding {
    /// Of those who have no session, in percent.
    #[serde(default, deserialize_with = "fraction")]
    pub default_percent: f64,
    /// Who that is.
    #[serde(default)]
    pub default_policy: SheddingPolicy,
    /// Of those who have one, in percent.
    #[serde(default, deserialize_with = "fraction")]
    pub session_percent: f64,
    /// Who that is.
    #[serde(default)]
    pub session_policy: SessionShedding,
}

/// Who is shed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SheddingPolicy {
    /// Anybody.
    #[default]
    Random,
    /// The same visitors each time.
    Hash,
}

/// Who of those with a session is shed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SessionShedding {
    /// The same visitors each time.
    #[default]
    Hash,
}

/// How one of the origins is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct OriginSteering {
    /// By what.
    #[serde(default)]
    pub policy: OriginPolicy,
}

/// By what one of the origins is chosen; by their weights in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OriginPolicy {
    /// By chance.
    #[default]
    Random,
    /// By the visitor's address.
    Hash,
    /// By the requests that are not answered yet.
    LeastOutstandingRequests,
    /// By the connections that are open.
    LeastConnections,
}

/// What is told by e-mail.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NotificationFilter {
    /// Of the origins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Notices>,
    /// Of the pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<Notices>,
}

/// Of what is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Notices {
    /// Nothing.
    #[serde(default)]
    pub disable: bool,
    /// Only when it gets well, or when it fails; `None`: both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthy: Option<bool>,
}

pub(super) fn yes() -> bool {
    true
}

fn one() -> u32 {
    1
}

/// An id, or none where there is no text.
fn some_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<MonitorId>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?.filter(|text| !text.is_empty());
    text.map(|text| text.parse().map_err(serde::de::Error::custom)).transpose()
}

impl PoolTerms {
    /// Of a name.
    pub const MAX_NAME_CHARS: usize = 100;
    /// In one pool.
    pub const MAX_ORIGINS: usize = 200;
    /// Of addresses that are told.
    pub const MAX_EMAIL_CHARS: usize = 1000;

    /// Refuses what is no name of a pool; `member` is where it stands.
    ///
    /// # Errors
    /// It is none, and what would be.
    pub fn check_name(member: &str, name: &str) -> Result<(), BadTerms> {
        let is_of_names = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        if name.is_empty() || name.len() > Self::MAX_NAME_CHARS || !name.chars().all(is_of_names) {
            let most = Self::MAX_NAME_CHARS;
            return Err(BadTerms::of(member, format_args!("1 to {most} letters, digits, - or _ are wanted")));
        }
        Ok(())
    }

    /// The same in the one form in which it is kept, if it will do.
    ///
    /// # Errors
    /// What will not do, and what would.
    pub fn checked(mut self) -> Result<Self, BadTerms> {
        Self::check_name("name", &self.name)?;
        self.check_origins()?;
        check_number("minimum_origins", self.minimum_origins, 1, Self::MAX_ORIGINS as u32)?;
        if let Some(regions) = &self.check_regions {
            regions.iter().try_for_each(|region| check_region("check_regions", region))?;
        }
        self.check_place()?;
        self.label_steering.as_ref().map_or(Ok(()), LabelSteering::check)?;
        check_share("load_shedding.default_percent", self.load_shedding.default_percent, 100.0)?;
        check_share("load_shedding.session_percent", self.load_shedding.session_percent, 100.0)?;
        check_email(&self.notification_email)?;
        check_text("monitor_group", self.monitor_group.as_deref().unwrap_or_default(), MAX_DESCRIPTION_CHARS)?;
        check_text("description", &self.description, MAX_DESCRIPTION_CHARS)?;
        Ok(self)
    }

    /// Notes since when origins are disabled, and values of labels have no weight: as in the former terms, else since now.
    pub(super) fn note_disabled(&mut self, old: Option<&Self>, now: Timestamp) {
        let former = old.map(|old| &*old.origins).unwrap_or_default();
        for origin in &mut self.origins {
            let same = former.iter().find(|old| old.place() == origin.place());
            let since = || same.filter(|old| !old.enabled).and_then(|old| old.disabled_at).unwrap_or(now);
            origin.disabled_at = (!origin.enabled).then(since);
        }
        if let Some(steering) = &mut self.label_steering {
            steering.note_disabled(old.and_then(|old| old.label_steering.as_ref()), now);
        }
    }

    fn check_origins(&mut self) -> Result<(), BadTerms> {
        if self.origins.len() > Self::MAX_ORIGINS {
            let most = Self::MAX_ORIGINS;
            return Err(BadTerms::of("origins", format_args!("at most {most} are possible in one pool")));
        }
        let (mut names, mut places) = (HashSet::new(), HashSet::new());
        for (at, origin) in self.origins.iter_mut().enumerate() {
            origin.check(|member| format!("origins[{at}].{member}"))?;
        }
        for (at, origin) in self.origins.iter().enumerate() {
            let of = |member: &str| format!("origins[{at}].{member}");
            if !origin.name.is_empty() && !names.insert(&origin.name) {
                let problem = format_args!("{} is the name of another origin of the pool", origin.name);
                return Err(BadTerms::of(of("name"), problem));
            }
            if !places.insert(origin.place()) {
                return Err(BadTerms::of(
                    of("address"),
                    "another origin of the pool has the same address, port and Host",
                ));
            }
        }
        Ok(())
    }

    fn check_place(&self) -> Result<(), BadTerms> {
        for (member, degrees, most) in [("latitude", self.latitude, 90.0), ("longitude", self.longitude, 180.0)] {
            if degrees.is_some_and(|degrees| !(-most..=most).contains(&degrees)) {
                return Err(BadTerms::of(member, format_args!("-{most} to {most} degrees are wanted")));
            }
        }
        match (self.latitude, self.longitude) {
            (Some(_), None) => Err(BadTerms::of("longitude", "wanted where there is a latitude")),
            (None, Some(_)) => Err(BadTerms::of("latitude", "wanted where there is a longitude")),
            (Some(_), Some(_)) | (None, None) => Ok(()),
        }
    }
}

impl Origin {
    fn check(&mut self, of: impl Fn(&str) -> String) -> Result<(), BadTerms> {
        check_text(&of("name"), &self.name, PoolTerms::MAX_NAME_CHARS)?;
        self.address = match self.address.parse::<IpAddr>() {
            Ok(address) => address.to_string().into(),
            Err(_) => host(&of("address"), &self.address, "an IP address or a host name is wanted")?,
        };
        check_share(&of("weight"), self.weight, 1.0)?;
        if self.header.host.len() > 1 {
            return Err(BadTerms::of(of("header.Host"), "one value is wanted"));
        }
        for value in &mut self.header.host {
            let wanted = "a host name is wanted, perhaps with a port";
            *value = match value.rsplit_once(':') {
                Some((name, port)) if port.parse::<u16>().is_ok_and(|port| port != 0) => {
                    format!("{}:{port}", host(&of("header.Host"), name, wanted)?).into()
                }
                Some(_) | None => host(&of("header.Host"), value, wanted)?,
            };
        }
        Ok(())
    }
}

fn host(member: &str, text: &str, wanted: &str) -> Result<Box<str>, BadTerms> {
    let name = Hostname::parse(text).map_err(|problem| BadTerms::of(member, format_args!("{wanted}: {problem}")))?;
    match name.wildcard_parent() {
        Some(_) => Err(BadTerms::of(member, format_args!("{wanted}, no wildcard"))),
        None => Ok(name.as_str().into()),
    }
}

/// Refuses what is no list of e-mail addresses.
pub(super) fn check_email(text: &str) -> Result<(), BadTerms> {
    let is_address = |text: &str| {
        let is_plain = text.chars().all(|c| !c.is_control() && !c.is_whitespace());
        is_plain && text.split_once('@').is_some_and(|(who, host)| !who.is_empty() && Hostname::parse(host).is_ok())
    };
    if text.chars().count() > PoolTerms::MAX_EMAIL_CHARS
        || !(text.is_empty() || text.split(',').all(|text| is_address(text.trim())))
    {
        let most = PoolTerms::MAX_EMAIL_CHARS;
        let problem = format_args!("e-mail addresses with commas between are wanted, at most {most} characters");
        return Err(BadTerms::of("notification_email", problem));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(value: Value) -> Result<PoolTerms, String> {
        let terms: PoolTerms = serde_json::from_value(value).map_err(|error| error.to_string())?;
        terms.checked().map_err(|error| error.to_string())
    }

    fn with(member: &str, value: Value) -> Value {
        let mut pool = json!({ "name": "shop", "origins": [{ "name": "a", "address": "192.0.2.1" }] });
        pool[member] = value;
        pool
    }

    #[test]
    fn what_is_left_out_is_as_usual_and_what_is_kept_is_kept_again_as_it_is() {
        let usual = read(with("enabled", json!(true))).unwrap();
        assert_eq!((usual.enabled, usual.minimum_origins, usual.monitor), (true, 1, None));
        assert_eq!((usual.origins[0].weight, usual.origins[0].enabled, usual.origins[0].port), (1.0, true, 0));
        assert_eq!(usual.origin_steering.policy, OriginPolicy::Random);
        let origins = json!([
            { "address": "App.Example.TEST.", "weight": "0.1", "port": "8080", "header": { "host": ["A.test:81"] } },
            { "address": "2001:DB8:0::1", "weight": 0.333_333_333, "enabled": false },
            { "address": "11111111-2222-4333-8444-555555555555.cfargotunnel.com", "header": { "Host": ["a.test"] } },
        ]);
        let mut wanted = with("origins", origins);
        wanted["latitude"] = json!("48.1234567");
        wanted["longitude"] = json!(-11);
        wanted["load_shedding"] = json!({ "default_percent": 12.5, "default_policy": "hash" });
        wanted["notification_filter"] = json!({ "pool": { "healthy": false } });
        wanted["monitor"] = json!("");
        let kept = read(wanted).unwrap();
        assert_eq!((&*kept.origins[0].address, &*kept.origins[0].header.host[0]), ("app.example.test", "a.test:81"));
        assert_eq!((&*kept.origins[1].address, kept.origins[1].weight), ("2001:db8::1", 0.333_333));
        assert_eq!((kept.latitude, kept.longitude), (Some(48.123_457), Some(-11.0)));
        let text = serde_json::to_string(&kept).unwrap();
        assert_eq!(read(serde_json::from_str(&text).unwrap()).unwrap(), kept);
        assert!(read(with("origins", json!([]))).is_ok());
    }

    #[test]
    fn what_will_not_do_is_refused_by_its_name() {
        let origin = |member: &str, value: Value| {
            let mut origin = json!({ "address": "192.0.2.1" });
            origin[member] = value;
            with("origins", json!([{ "name": "b", "address": "b.test" }, origin]))
        };
        let many: Vec<_> = (0..201).map(|index| json!({ "address": format!("h{index}.test") })).collect();
        for (value, member) in [
            (json!({ "name": "shop" }), "origins"),
            (json!({ "origins": [] }), "name"),
            (with("name", json!("a b")), "name"),
            (with("name", json!("")), "name"),
            (with("name", json!("é")), "name"),
            (with("name", json!("a".repeat(101))), "name"),
            (with("origins", json!(many)), "origins"),
            (with("origins", json!([{ "name": "a" }])), "address"),
            (origin("address", json!("a b")), "origins[1].address"),
            (origin("address", json!("*.a.test")), "origins[1].address"),
            (origin("address", json!("http://a.test")), "origins[1].address"),
            (origin("address", json!("192.0.2.1:80")), "origins[1].address"),
            (origin("address", json!("b.test")), "origins[1].address"),
            (origin("name", json!("b")), "origins[1].name"),
            (origin("weight", json!(1.5)), "origins[1].weight"),
            (origin("weight", json!(-0.1)), "origins[1].weight"),
            (origin("weight", json!("NaN")), "number"),
            (origin("port", json!(65_536)), "number"),
            (origin("header", json!({ "Host": ["a", "b"] })), "origins[1].header.Host"),
            (origin("header", json!({ "Host": ["a b"] })), "origins[1].header.Host"),
            (origin("virtual_network_id", json!("x")), "UUID"),
            (with("minimum_origins", json!(0)), "minimum_origins"),
            (with("monitor", json!("x")), "id"),
            (with("check_regions", json!(["MOON"])), "check_regions"),
            (with("latitude", json!(91)), "latitude"),
            (with("longitude", json!(1)), "latitude"),
            (with("load_shedding", json!({ "default_percent": 101 })), "default_percent"),
            (with("load_shedding", json!({ "session_policy": "random" })), "hash"),
            (with("origin_steering", json!({ "policy": "best" })), "best"),
            (with("notification_email", json!("nobody")), "notification_email"),
            (with("notification_email", json!("a@b.test,,")), "notification_email"),
            (with("description", json!("a".repeat(1001))), "description"),
        ] {
            let problem = read(value.clone()).unwrap_err();
            assert!(problem.contains(member), "{value}: {problem}");
        }
    }
}
