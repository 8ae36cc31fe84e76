//! Where the node is, and what says where its visitors are.

use std::path::PathBuf;

use anyhow::Context as _;
use geo::{Database, Geography, Place};
use registry::REGIONS;

use crate::problem::Problem;

/// Flags of `up` about places.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct GeoArgs {
    /// In which part of the world this node is, such as WEU
    #[arg(
        long, value_name = "CODE", value_parser = region, env = "SNICKET_REGION", hide_env_values = true,
        hide_short_help = true
    )]
    pub(crate) region: Option<&'static str>,
    /// Where exactly, latitude and longitude, such as 52.5,13.4
    #[arg(
        long,
        value_name = "DEGREES",
        allow_hyphen_values = true,
        env = "SNICKET_COORDINATES",
        hide_env_values = true,
        hide_short_help = true
    )]
    pub(crate) coordinates: Option<Place>,
    /// Where visitors are: a database of the MaxMind form, read again when it changes
    #[arg(long, value_name = "FILE", env = "SNICKET_GEO", hide_env_values = true, hide_short_help = true)]
    pub(crate) geo: Option<PathBuf>,
}

impl GeoArgs {
    pub(crate) fn or(self, file: Self) -> Self {
        Self {
            region: self.region.or(file.region),
            coordinates: self.coordinates.or(file.coordinates),
            geo: self.geo.or(file.geo),
        }
    }

    pub(crate) fn files(&self) -> Option<(&'static str, PathBuf)> {
        self.geo.clone().map(|path| ("geo", path))
    }

    /// What is known then.
    pub(crate) fn open(&self) -> anyhow::Result<Geography> {
        let database = self.geo.as_deref().map(|path| {
            Database::open(path).with_context(|| {
                Problem::usage(
                    format!("{} of --geo cannot be used", path.display()),
                    "name a database of countries or cities in the MaxMind form (.mmdb), such as GeoLite2 City",
                )
            })
        });
        Ok(Geography::new(self.region, self.coordinates, database.transpose()?))
    }
}

/// Reads the code of a part of the world.
pub(crate) fn region(text: &str) -> Result<&'static str, String> {
    // All of them together are no place.
    let [parts @ .., _] = &REGIONS;
    let found = parts.iter().find(|(code, _)| code.eq_ignore_ascii_case(text));
    found.map(|(code, _)| *code).ok_or_else(|| {
        let codes: Vec<_> = parts.iter().map(|(code, _)| *code).collect();
        format!("{text:?} is no region; write one of {}", codes.join(", "))
    })
}
