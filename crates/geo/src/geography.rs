use std::net::IpAddr;

use crate::database::Found;
use crate::{Country, Database, DatabaseError, Place};

/// Where a node is, and where its visitors are as far as that is known.
#[derive(Debug, Default)]
pub struct Geography {
    home: Whereabouts,
    database: Option<Database>,
}

/// Where somebody is, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Whereabouts {
    /// The country.
    pub country: Option<Country>,
    /// The code of the region, such as `WEU`.
    pub region: Option<&'static str>,
    /// The place.
    pub place: Option<Place>,
}

impl Geography {
    /// Of a node in this region and at this place, which looks visitors up in this database.
    pub fn new(region: Option<&'static str>, place: Option<Place>, database: Option<Database>) -> Self {
        Self { home: Whereabouts { country: None, region, place }, database }
    }

    /// Where the node is. In which country nobody says.
    pub fn home(&self) -> Whereabouts {
        self.home
    }

    /// Where a visitor with this address is. Of region and place what is not known is the node's, since visitors come to a near one.
    pub fn of(&self, address: IpAddr) -> Whereabouts {
        let Found { country, region, place } =
            self.database.as_ref().map(|database| database.find(address)).unwrap_or_default();
        Whereabouts { country, region: region.or(self.home.region), place: place.or(self.home.place) }
    }

    /// The database, if there is one.
    pub fn database(&self) -> Option<&Database> {
        self.database.as_ref()
    }

    /// Reads the database again if its file has changed, and answers whether; see [`Database::reload`].
    ///
    /// # Errors
    /// It cannot be used; what was read before stays in use.
    pub fn reload(&self) -> Result<bool, DatabaseError> {
        self.database.as_ref().map_or(Ok(false), Database::reload)
    }
}
