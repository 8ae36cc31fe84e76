//! Zones, their records and their keys.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use registry::{RecordContent, RecordType};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use url::Url;

use super::{Api, encode};
use crate::fetch::{Sent, TIME_LIMIT};
use crate::problem::Problem;

/// The most zones that the API has on a page.
const ZONES_PER_PAGE: usize = 50;

/// Records asked for in one page: a few megabytes where they are as long as they may be.
const RECORDS_PER_PAGE: usize = 1_000;

/// A zone file of 100,000 records, in a registry whose members are far from each other.
const IMPORT_LIMIT: Duration = Duration::from_secs(300);

/// A zone as the API shows it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Zone {
    /// Its id.
    pub(crate) id: String,
    /// Its name.
    pub(crate) name: String,
    /// `full`, `partial`, `secondary` or `internal`.
    #[serde(rename = "type", default)]
    pub(crate) kind: String,
    /// Whether its proxied names are answered with what they lead to.
    #[serde(default)]
    pub(crate) paused: bool,
    /// Whom to delegate to; none while no node answers by DNS.
    #[serde(default)]
    pub(crate) name_servers: Vec<String>,
}

/// A record as the API shows it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Its id.
    pub(crate) id: String,
    /// Its whole name.
    pub(crate) name: String,
    /// Its type.
    #[serde(rename = "type")]
    pub(crate) kind: String,
    /// Its data.
    pub(crate) content: String,
    /// Where the type has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) priority: Option<u16>,
    /// Seconds; 1 is automatic.
    pub(crate) ttl: u32,
    /// Visitors come through the edge.
    #[serde(default)]
    pub(crate) proxied: bool,
    /// For people.
    #[serde(default)]
    pub(crate) comment: Option<String>,
    /// For filters.
    #[serde(default)]
    pub(crate) tags: Vec<String>,
}

impl Record {
    /// The data as a zone file has it, but for dots and quotes: the priority of a mail server is part of it.
    pub(crate) fn data(&self) -> String {
        match (self.kind.as_str(), self.priority) {
            ("MX", Some(priority)) => format!("{priority} {}", self.content),
            _ => self.content.clone(),
        }
    }

    /// Whether DNS would take it for a record with these data.
    pub(crate) fn is(&self, data: &RecordContent) -> bool {
        let kind = self.kind.parse::<RecordType>().ok();
        let own = kind.and_then(|kind| RecordContent::parse(kind, &self.content, self.priority, None).ok());
        own.is_some_and(|own| own.is_same(data))
    }
}

/// What an import did.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Imported {
    /// Records that were not there.
    pub(crate) recs_added: usize,
    /// Records in the file.
    pub(crate) total_records_parsed: usize,
}

/// Whether a zone is signed, and by which key.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Dnssec {
    /// `active`, `pending` or `disabled`.
    pub(crate) status: String,
    /// The record for the zone above.
    #[serde(default)]
    pub(crate) ds: Option<String>,
    /// The key's number.
    #[serde(default)]
    pub(crate) key_tag: Option<u16>,
    /// How it signs.
    #[serde(default)]
    pub(crate) algorithm: Option<String>,
    /// How the digest was made.
    #[serde(default)]
    pub(crate) digest_type: Option<String>,
    /// The digest of the key.
    #[serde(default)]
    pub(crate) digest: Option<String>,
    /// The key.
    #[serde(default)]
    pub(crate) public_key: Option<String>,
}

impl Api {
    /// All zones, by name.
    pub(crate) async fn zones(&self) -> anyhow::Result<Vec<Zone>> {
        self.all("/zones?order=name", ZONES_PER_PAGE).await
    }

    /// The zone of this name.
    pub(crate) async fn zone(&self, name: &str) -> anyhow::Result<Zone> {
        let zones: Vec<Zone> = self.call(Method::GET, &format!("/zones?name={}", encode(name)), None).await?;
        zones.into_iter().next().ok_or_else(|| {
            let advice = format!("`snicket dns` lists those that exist; `snicket dns create {name}` makes it");
            Problem::new(format!("there is no zone {name:?} at {}", self.origin()), advice).into()
        })
    }

    /// Makes a zone.
    pub(crate) async fn create_zone(&self, name: &str) -> anyhow::Result<Zone> {
        self.call(Method::POST, "/zones", Some(json!({ "name": name }))).await
    }

    /// Removes a zone with all its records.
    pub(crate) async fn delete_zone(&self, zone: &Zone) -> anyhow::Result<()> {
        self.call::<Value>(Method::DELETE, &format!("/zones/{}", zone.id), None).await.map(drop)
    }

    /// Records of a zone: those of this name and this type, if they are given.
    pub(crate) async fn records(
        &self,
        zone: &Zone,
        name: Option<&str>,
        kind: Option<RecordType>,
    ) -> anyhow::Result<Vec<Record>> {
        let mut path = format!("{}?match=all", records_path(zone));
        for (key, value) in [("name", name), ("type", kind.map(RecordType::name))] {
            if let Some(value) = value {
                path.push_str(&format!("&{key}={}", encode(value)));
            }
        }
        self.all(&path, RECORDS_PER_PAGE).await
    }

    /// Removes records and makes one, all of that or nothing.
    pub(crate) async fn replace_records(&self, zone: &Zone, old: &[Record], new: Value) -> anyhow::Result<Record> {
        if old.is_empty() {
            // What is wrong with it is told without its place in a list.
            return self.call(Method::POST, &records_path(zone), Some(new)).await;
        }
        let body = json!({ "deletes": ids(old), "posts": [new] });
        #[derive(Deserialize)]
        struct Edited {
            posts: [Record; 1],
        }
        let edited: Edited = self.call(Method::POST, &format!("{}/batch", records_path(zone)), Some(body)).await?;
        let [record] = edited.posts;
        Ok(record)
    }

    /// Removes records, all or none.
    pub(crate) async fn remove_records(&self, zone: &Zone, records: &[Record]) -> anyhow::Result<()> {
        let body = json!({ "deletes": ids(records) });
        self.call::<Value>(Method::POST, &format!("{}/batch", records_path(zone)), Some(body)).await.map(drop)
    }

    /// The zone as a zone file.
    pub(crate) async fn export_zone(&self, zone: &Zone) -> anyhow::Result<String> {
        let url = self.at(&format!("{}/export", records_path(zone)))?;
        let answer = self.send_within(TIME_LIMIT, Method::GET, &url, None).await?;
        if answer.status() != StatusCode::OK {
            return Err(self.read::<Value>(&answer).err().unwrap_or_else(|| self.not_ours().into()));
        }
        String::from_utf8(answer.into_body().into()).map_err(|_| self.not_ours().into())
    }

    /// Adds the records of a zone file that are not there yet.
    pub(crate) async fn import_zone(&self, zone: &Zone, file: Bytes) -> anyhow::Result<Imported> {
        let url = self.at(&format!("{}/import", records_path(zone)))?;
        let answer = self.send_within(IMPORT_LIMIT, Method::POST, &url, Some(Sent::Text(file))).await?;
        self.read(&answer).map(|(imported, _)| imported)
    }

    /// Whether a zone is signed; changes that first, if that is wanted.
    pub(crate) async fn dnssec(&self, zone: &Zone, on: Option<bool>) -> anyhow::Result<Dnssec> {
        let path = format!("/zones/{}/dnssec", zone.id);
        match on {
            None => self.call(Method::GET, &path, None).await,
            Some(on) => {
                let status = if on { "active" } else { "disabled" };
                self.call(Method::PATCH, &path, Some(json!({ "status": status }))).await
            }
        }
    }

    fn at(&self, path: &str) -> anyhow::Result<Url> {
        Ok(Url::parse(&format!("{}{path}", self.base))?)
    }
}

fn records_path(zone: &Zone) -> String {
    format!("/zones/{}/dns_records", zone.id)
}

fn ids(records: &[Record]) -> Vec<Value> {
    records.iter().map(|record| json!({ "id": record.id })).collect()
}
