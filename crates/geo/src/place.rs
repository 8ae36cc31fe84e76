use std::str::FromStr;

/// A place on the earth, in degrees.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Place {
    /// -90 to 90, north is positive.
    pub latitude: f64,
    /// -180 to 180, east is positive.
    pub longitude: f64,
}

/// A text that is no [`Place`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("write latitude and longitude in degrees, such as 52.5,13.4 or -33.9,18.4")]
pub struct BadPlace;

impl Place {
    /// If there is such a place.
    pub fn new(latitude: f64, longitude: f64) -> Option<Self> {
        let fits = (-90.0..=90.0).contains(&latitude) && (-180.0..=180.0).contains(&longitude);
        fits.then_some(Self { latitude, longitude })
    }

    /// Grows with the distance along a great circle, 0 to 1 (the haversine; distances are only compared).
    pub fn distance(self, other: Self) -> f64 {
        let [from, to] = [self.latitude.to_radians(), other.latitude.to_radians()];
        let across = (other.longitude - self.longitude).to_radians();
        let half = |angle: f64| (angle / 2.0).sin().powi(2);
        half(to - from) + from.cos() * to.cos() * half(across)
    }
}

/// Such as `52.5,13.4`.
impl FromStr for Place {
    type Err = BadPlace;

    fn from_str(text: &str) -> Result<Self, BadPlace> {
        let (latitude, longitude) = text.split_once(',').ok_or(BadPlace)?;
        let degrees = |text: &str| text.trim().parse::<f64>().map_err(|_| BadPlace);
        Self::new(degrees(latitude)?, degrees(longitude)?).ok_or(BadPlace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_is_near_across_the_date_line_and_the_poles() {
        let place = |latitude, longitude| Place { latitude, longitude };
        let (fiji, samoa, paris) = (place(-18.0, 178.0), place(-14.0, -171.0), place(49.0, 2.0));
        assert!(fiji.distance(samoa) < fiji.distance(paris));
        let (alert, murmansk) = (place(82.5, -62.0), place(69.0, 33.0));
        assert!(alert.distance(murmansk) < alert.distance(place(40.0, -62.0)));
        assert_eq!(paris.distance(paris), 0.0);
    }

    #[test]
    fn places_are_read_as_people_write_them() {
        assert_eq!("52.5,13.4".parse(), Ok(Place { latitude: 52.5, longitude: 13.4 }));
        assert_eq!("-33.9, 18".parse(), Ok(Place { latitude: -33.9, longitude: 18.0 }));
        for text in ["", "52.5", "91,0", "0,181", "nan,0", "inf,0", "a,b", "1,2,3"] {
            assert_eq!(text.parse::<Place>(), Err(BadPlace), "{text}");
        }
    }
}
