use std::fs::{self, File, Metadata};
use std::io::{self, Read as _};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use maxminddb::{MaxMindDbError, Reader};
use serde::Deserialize;

use crate::{Country, Place};

/// Says where addresses are: a file in the MaxMind DB form (version 2) with countries (`country.iso_code`), places (`location`) or both,
/// such as GeoLite2 City or a free one of the same form. All of it is in memory.
#[derive(Debug)]
pub struct Database {
    path: PathBuf,
    loaded: ArcSwap<Loaded>,
    /// The file that was refused last: as long as it stays, there is nothing new to say of it.
    refused: Mutex<Option<Version>>,
}

/// Why a file is no [`Database`].
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// It cannot be read.
    #[error("it cannot be read: {0}")]
    Read(#[from] io::Error),
    /// It is larger than [`Database::MAX_BYTES`].
    #[error("it has more than {} MiB", Database::MAX_BYTES >> 20)]
    TooLarge,
    /// It has another form, or is broken.
    #[error("it is no whole database of the MaxMind form: {0}")]
    Broken(#[from] MaxMindDbError),
    /// It is of something else, such as providers.
    #[error("it is a database of {0:?}, which tells neither countries nor places")]
    Useless(String),
}

#[derive(Debug)]
struct Loaded {
    reader: Reader<Vec<u8>>,
    version: Version,
}

/// By which another file, or another content, is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Version {
    changed: Option<SystemTime>,
    bytes: u64,
    /// The file's number, where the system has one: two that are put in its place soon after each other may have the same time and length.
    number: Option<u64>,
}

/// What is known of an address.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Found {
    pub(crate) country: Option<Country>,
    pub(crate) region: Option<&'static str>,
    pub(crate) place: Option<Place>,
}

/// As much of a record as matters.
#[derive(Default, Deserialize)]
struct Record<'a> {
    #[serde(borrow, default)]
    country: Coded<'a>,
    #[serde(borrow, default)]
    subdivisions: Vec<Coded<'a>>,
    #[serde(default)]
    location: Location,
}

#[derive(Default, Deserialize)]
struct Coded<'a> {
    #[serde(default)]
    iso_code: Option<&'a str>,
}

#[derive(Default, Deserialize)]
struct Location {
    latitude: Option<f64>,
    longitude: Option<f64>,
}

impl Database {
    /// A file that is larger is none of these; the largest ones that are sold have some 500 MiB.
    pub const MAX_BYTES: u64 = 2 << 30;
    /// Networks that are looked through for one whose country or place is known.
    const SAMPLE: usize = 1000;

    /// Reads a file and looks it through.
    ///
    /// # Errors
    /// It cannot be read, is broken, or tells nothing of what matters.
    pub fn open(path: &Path) -> Result<Self, DatabaseError> {
        let loaded = Loaded::read(path)?;
        Ok(Self { path: path.to_owned(), loaded: ArcSwap::from_pointee(loaded), refused: Mutex::default() })
    }

    /// Its file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the file again if it has changed, and answers whether. May take a second or two.
    ///
    /// # Errors
    /// As [`Database::open`], once for each version of the file; what was read before stays in use.
    pub fn reload(&self) -> Result<bool, DatabaseError> {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let version = Version::of(&fs::metadata(&self.path)?);
        if version == self.loaded.load().version || Some(version) == *refused {
            return Ok(false);
        }
        match Loaded::read(&self.path) {
            Ok(loaded) => {
                self.loaded.store(loaded.into());
                *refused = None;
                Ok(true)
            }
            // Whoever may not read it yet may do so later.
            Err(error @ DatabaseError::Read(_)) => Err(error),
            Err(error) => {
                *refused = Some(version);
                Err(error)
            }
        }
    }

    pub(crate) fn find(&self, address: IpAddr) -> Found {
        let loaded = self.loaded.load();
        // What is wrong with one record is nobody else's trouble; and every record was looked through.
        let record = loaded.reader.lookup(address.to_canonical()).and_then(|found| found.decode::<Record<'_>>());
        record.ok().flatten().map(|record| record.found()).unwrap_or_default()
    }
}

impl Loaded {
    fn read(path: &Path) -> Result<Self, DatabaseError> {
        let file = File::open(path)?;
        let version = Version::of(&file.metadata()?);
        let mut content = Vec::new();
        file.take(Database::MAX_BYTES + 1).read_to_end(&mut content)?;
        if content.len() as u64 > Database::MAX_BYTES {
            return Err(DatabaseError::TooLarge);
        }
        let reader = Reader::from_source(content)?;
        reader.verify()?;
        let is_useful = {
            let mut records = reader.networks(Default::default())?.take(Database::SAMPLE);
            records.any(|found| {
                let record = found.and_then(|found| found.decode::<Record<'_>>());
                matches!(record, Ok(Some(record)) if record.found() != Found::default())
            })
        };
        if !is_useful {
            return Err(DatabaseError::Useless(reader.metadata().database_type.chars().take(100).collect()));
        }
        Ok(Self { reader, version })
    }
}

impl Version {
    fn of(metadata: &Metadata) -> Self {
        #[cfg(unix)]
        let number = Some(std::os::unix::fs::MetadataExt::ino(metadata));
        #[cfg(not(unix))]
        let number = None;
        Self { changed: metadata.modified().ok(), bytes: metadata.len(), number }
    }
}

impl Record<'_> {
    fn found(&self) -> Found {
        let country = self.country.iso_code.and_then(Country::new);
        let place = self.location.latitude.zip(self.location.longitude);
        let place = place.and_then(|(latitude, longitude)| Place::new(latitude, longitude));
        let state = self.subdivisions.first().and_then(|state| state.iso_code);
        Found { country, region: country.and_then(|country| country.region(state, place)), place }
    }
}
