//! Databases as files: read, refused, and read again when they change.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::fs::{self, File};
use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, SystemTime};

use geo::{Database, Geography, Place, Whereabouts};
use harness::{GeoEntry, geo_database};

fn entry(network: &str, bits: u8, country: &'static str, place: Option<(f64, f64)>) -> GeoEntry {
    GeoEntry { network: (network.parse().unwrap(), bits), country, place }
}

fn world() -> Vec<u8> {
    geo_database(
        "Test-City",
        &[
            entry("192.0.2.0", 24, "DE", Some((52.5, 13.4))),
            entry("198.51.100.0", 25, "US", Some((37.8, -122.4))),
            entry("203.0.113.7", 32, "JP", None),
            entry("2001:db8::", 32, "BR", Some((-23.5, -46.6))),
            entry("10.0.0.0", 8, "", Some((0.0, 0.0))),
        ],
    )
}

/// Later than the file is, since clocks of file systems are coarse.
fn touch(path: &Path, seconds: u64) {
    let file = File::options().write(true).open(path).unwrap();
    file.set_modified(SystemTime::now() + Duration::from_secs(seconds)).unwrap();
}

fn place(latitude: f64, longitude: f64) -> Option<Place> {
    Place::new(latitude, longitude)
}

#[test]
fn addresses_are_found_with_what_is_known_of_them_and_of_the_node() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("world.mmdb");
    fs::write(&path, world()).unwrap();
    let home = place(48.1, 11.6);
    let geography = Geography::new(Some("WEU"), home, Some(Database::open(&path).unwrap()));
    for (address, country, region, at) in [
        ("192.0.2.77", "DE", "WEU", place(52.5, 13.4)),
        ("::ffff:192.0.2.77", "DE", "WEU", place(52.5, 13.4)),
        ("198.51.100.1", "US", "WNAM", place(37.8, -122.4)),
        ("198.51.100.200", "", "WEU", home),
        ("203.0.113.7", "JP", "NEAS", home),
        ("2001:db8:1::1", "BR", "SSAM", place(-23.5, -46.6)),
        ("10.1.2.3", "", "WEU", place(0.0, 0.0)),
        ("127.0.0.1", "", "WEU", home),
    ] {
        let Whereabouts { country: of, region: lies, place } = geography.of(address.parse::<IpAddr>().unwrap());
        let of = of.as_ref().map_or("", |country| country.as_str());
        assert_eq!((of, lies, place), (country, Some(region), at), "{address}");
    }
    let nowhere = Geography::default();
    assert_eq!(nowhere.of("192.0.2.1".parse().unwrap()), Whereabouts::default());
}

#[test]
fn what_is_no_database_is_refused_with_the_reason() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.mmdb");
    let refused = |content: &[u8]| {
        fs::write(&path, content).unwrap();
        Database::open(&path).unwrap_err().to_string()
    };
    let whole = world();
    let mut damaged = whole.clone();
    // Within the tree: a node that leads behind the end.
    damaged[..6].fill(0xff);
    for content in [&b""[..], b"hello", &whole[..whole.len() / 2], &whole[20..], &damaged] {
        assert!(refused(content).contains("no whole database"), "{}", refused(content));
    }
    let providers = geo_database("Test-ASN", &[entry("192.0.2.0", 24, "", None)]);
    assert!(refused(&providers).contains("\"Test-ASN\", which tells neither"), "{}", refused(&providers));
    fs::remove_file(&path).unwrap();
    assert!(Database::open(&path).unwrap_err().to_string().contains("cannot be read"));
}

#[test]
fn a_file_that_changes_is_read_again_and_a_broken_one_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("world.mmdb");
    fs::write(&path, world()).unwrap();
    let geography = Geography::new(None, None, Some(Database::open(&path).unwrap()));
    let country = || geography.of("192.0.2.1".parse().unwrap()).country.unwrap().as_str().to_owned();
    assert!(!geography.reload().unwrap());
    fs::write(&path, &world()[..100]).unwrap();
    touch(&path, 1);
    assert!(geography.reload().is_err());
    assert_eq!(country(), "DE");
    // Told once, and again when it has changed.
    assert!(!geography.reload().unwrap());
    touch(&path, 2);
    assert!(geography.reload().is_err());
    assert!(!geography.reload().unwrap());
    fs::write(&path, geo_database("Test-Country", &[entry("192.0.2.0", 24, "FR", None)])).unwrap();
    touch(&path, 3);
    assert!(geography.reload().unwrap());
    assert_eq!(country(), "FR");
    assert!(!geography.reload().unwrap());
}

/// Renamed into its place within one tick of the system's clock for files.
#[cfg(unix)]
#[test]
fn a_file_that_takes_the_place_of_one_as_old_and_as_long_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let (path, next) = (directory.path().join("world.mmdb"), directory.path().join("next"));
    let write = |path: &Path, country| {
        fs::write(path, geo_database("Test-Country", &[entry("192.0.2.0", 24, country, None)])).unwrap();
        touch(path, 1);
    };
    write(&path, "DE");
    let geography = Geography::new(None, None, Some(Database::open(&path).unwrap()));
    write(&next, "FR");
    fs::rename(&next, &path).unwrap();
    assert!(geography.reload().unwrap());
    assert_eq!(geography.of("192.0.2.1".parse().unwrap()).country.unwrap().as_str(), "FR");
}

/// Whatever bytes a file has: it is refused, or every address has an answer.
#[test]
fn damage_anywhere_is_refused_or_harmless() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.mmdb");
    let whole = world();
    for at in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 1 << (at % 8);
        fs::write(&path, damaged).unwrap();
        if let Ok(database) = Database::open(&path) {
            let geography = Geography::new(None, None, Some(database));
            for address in ["192.0.2.1", "198.51.100.1", "8.8.8.8", "2001:db8::1", "10.0.0.1"] {
                let _ = geography.of(address.parse().unwrap());
            }
        }
    }
}
