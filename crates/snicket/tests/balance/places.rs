//! Visitors are led by where they are.

use std::fs;
use std::path::{Path, PathBuf};

use harness::{GeoEntry, LIMIT, Origin, Program, geo_database, until};
use serde_json::{Value, json};

use crate::{Balanced, HERE, at};

/// A database in which this machine, where the visitors of all tests are, lies in this country and at this place.
fn write(path: &Path, country: &'static str, place: Option<(f64, f64)>) {
    let network = ("127.0.0.0".parse().expect("an address"), 8);
    // Whoever looks at it meets one or the other, and never a part.
    let next = path.with_extension("next");
    fs::write(&next, geo_database("Test-City", &[GeoEntry { network, country, place }])).expect("it can be written");
    fs::rename(next, path).expect("it can be renamed");
}

struct Placed {
    balanced: Balanced,
    database: PathBuf,
    _directory: tempfile::TempDir,
}

impl Placed {
    async fn start(country: &'static str, place: Option<(f64, f64)>, more: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a directory can be made");
        let database = directory.path().join("world.mmdb");
        write(&database, country, place);
        let file = database.display().to_string();
        let balanced = Balanced::start(&[&HERE, &["--geo", &file][..], more].concat()).await;
        Self { balanced, database, _directory: directory }
    }

    /// Says that the visitors are elsewhere, and waits until the edge knows.
    async fn move_to(&self, country: &'static str) {
        write(&self.database, country, None);
        self.balanced.edge.process.signal("HUP").await;
        until(LIMIT, "the new database is in use", async || self.country().await == country).await;
    }

    /// The visitor's country as the edge tells it.
    async fn country(&self) -> String {
        let told = self.balanced.visitor().get(&self.balanced.url("/cdn-cgi/trace")).await.text();
        let country = told.lines().find_map(|line| line.strip_prefix("loc="));
        country.expect("it is told").to_owned()
    }
}

/// Which of these gets the next visitor, who is answered.
async fn led(balanced: &Balanced, origins: &[&Origin]) -> usize {
    let before: Vec<_> = origins.iter().map(|origin| origin.requests()).collect();
    assert_eq!(balanced.visits(1).await, [200]);
    origins.iter().zip(before).position(|(origin, before)| origin.requests() > before).expect("one was asked")
}

#[tokio::test(flavor = "multi_thread")]
async fn countries_and_regions_have_their_pools_and_a_new_database_is_read() {
    let placed = Placed::start("DE", None, &["--region", "OC"]).await;
    let (usual, german, western, near) =
        (Origin::start().await, Origin::start().await, Origin::start().await, Origin::start().await);
    let balanced = &placed.balanced;
    let mut pools = Vec::new();
    for (name, origin) in [("german", &german), ("western", &western), ("near", &near), ("usual", &usual)] {
        pools.push(balanced.pool(name, &[at(origin)]).await);
    }
    let terms = json!({
        "country_pools": { "DE": [pools[0]] },
        "region_pools": { "WEU": [pools[1]], "OC": [pools[2]] },
    });
    balanced.balancer(&[&pools[3]], terms).await;
    let all = [&german, &western, &near, &usual];
    assert_eq!(placed.country().await, "DE");
    assert_eq!(led(balanced, &all).await, 0, "the country goes before its region");
    placed.move_to("FR").await;
    assert_eq!(led(balanced, &all).await, 1);
    placed.move_to("US").await;
    assert_eq!(led(balanced, &all).await, 3, "a region without pools has the usual ones");
    // Antarctica is in no region, so that the node's counts.
    placed.move_to("AQ").await;
    assert_eq!(led(balanced, &all).await, 2);

    fs::write(&placed.database, "broken").expect("it can be written");
    balanced.edge.process.signal("HUP").await;
    until(LIMIT, "the edge says so", async || balanced.edge.process.stderr().contains("cannot be used")).await;
    assert_eq!(placed.country().await, "AQ", "the old one stays");
}

fn located(origin: &Origin, name: &str, latitude: f64, longitude: f64) -> Value {
    json!({ "name": name, "origins": [at(origin)], "latitude": latitude, "longitude": longitude })
}

#[tokio::test(flavor = "multi_thread")]
async fn the_nearest_pool_is_the_one_nearest_to_the_visitor_and_else_to_the_node() {
    let placed = Placed::start("JP", Some((35.7, 139.7)), &["--coordinates", "48.1,11.6"]).await;
    let balanced = &placed.balanced;
    let (europe, asia) = (Origin::start().await, Origin::start().await);
    let path = format!("/client/v4/accounts/{}/load_balancers/pools", balanced.account);
    let mut pools = Vec::new();
    for pool in [located(&europe, "europe", 50.1, 8.7), located(&asia, "asia", 37.6, 127.0)] {
        let pool = balanced.make(&path, pool).await;
        pools.push(pool["id"].as_str().expect("an id").to_owned());
    }
    balanced.balancer(&[&pools[0], &pools[1]], json!({ "steering_policy": "proximity" })).await;
    assert_eq!(led(balanced, &[&europe, &asia]).await, 1);
    // Of this country's visitors no place is known any more.
    placed.move_to("KR").await;
    assert_eq!(led(balanced, &[&europe, &asia]).await, 0);
}

#[tokio::test]
async fn a_broken_database_is_refused_with_the_reason() {
    let home = tempfile::tempdir().expect("a directory can be made");
    fs::write(home.path().join("world.mmdb"), "hello").expect("it can be written");
    let ports = ["--http", "0", "--https", "0", "--tunnel", "0", "--api", "0"];
    let (code, _, error) =
        Program::new(home.path(), &[&["up", "--geo", "world.mmdb"], &ports[..]].concat()).run().await;
    assert_eq!(code, 2, "{error}");
    for part in ["world.mmdb of --geo cannot be used", "MaxMind"] {
        assert!(error.contains(part), "{error}");
    }
}
