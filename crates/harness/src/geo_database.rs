use std::net::{IpAddr, Ipv6Addr};

/// What a [`geo_database`] says of a network.
#[derive(Debug, Clone, Copy)]
pub struct GeoEntry {
    /// Such as `192.0.2.0` and 24.
    pub network: (IpAddr, u8),
    /// Such as `DE`; empty: not known.
    pub country: &'static str,
    /// Latitude and longitude in degrees.
    pub place: Option<(f64, f64)>,
}

/// A file of the MaxMind DB form (version 2) that says this, as its specification describes it. Networks must not lie in each other.
pub fn geo_database(kind: &str, entries: &[GeoEntry]) -> Vec<u8> {
    let (mut tree, mut data) = (vec![[Edge::None; 2]], Vec::new());
    for entry in entries {
        let (address, bits) = match entry.network {
            // Where databases of both versions have them.
            (IpAddr::V4(address), bits) => (Ipv6Addr::from_bits(address.to_bits().into()), bits + 96),
            (IpAddr::V6(address), bits) => (address, bits),
        };
        let mut node = 0;
        for bit in 0..bits {
            let side = usize::from(address.to_bits() >> (127 - bit) & 1 == 1);
            if bit + 1 == bits {
                tree[node][side] = Edge::Data(data.len());
                break;
            }
            node = match tree[node][side] {
                Edge::Node(next) => next,
                _ => {
                    tree.push([Edge::None; 2]);
                    tree[node][side] = Edge::Node(tree.len() - 1);
                    tree.len() - 1
                }
            };
        }
        record(&mut data, entry);
    }
    let count = tree.len();
    let mut file = Vec::new();
    for edge in tree.iter().flatten() {
        let value = match edge {
            Edge::None => count,
            Edge::Node(node) => *node,
            Edge::Data(offset) => count + SEPARATOR.len() + offset,
        };
        file.extend_from_slice(&(value as u32).to_be_bytes()[1..]);
    }
    file.extend_from_slice(&SEPARATOR);
    file.extend_from_slice(&data);
    file.extend_from_slice(b"\xab\xcd\xefMaxMind.com");
    metadata(&mut file, kind, count);
    file
}

/// Between the tree and the data.
const SEPARATOR: [u8; 16] = [0; 16];

/// Where one bit of an address leads.
#[derive(Clone, Copy)]
enum Edge {
    None,
    Node(usize),
    Data(usize),
}

fn record(out: &mut Vec<u8>, entry: &GeoEntry) {
    map(out, usize::from(!entry.country.is_empty()) + usize::from(entry.place.is_some()));
    if !entry.country.is_empty() {
        text(out, "country");
        map(out, 1);
        text(out, "iso_code");
        text(out, entry.country);
    }
    if let Some((latitude, longitude)) = entry.place {
        text(out, "location");
        map(out, 2);
        for (name, degrees) in [("latitude", latitude), ("longitude", longitude)] {
            text(out, name);
            control(out, 3, 8);
            out.extend_from_slice(&degrees.to_be_bytes());
        }
    }
}

fn metadata(out: &mut Vec<u8>, kind: &str, nodes: usize) {
    map(out, 9);
    for (name, kind, value) in [
        ("binary_format_major_version", 5, 2_u64),
        ("binary_format_minor_version", 5, 0),
        ("build_epoch", 9, 1_700_000_000),
        ("ip_version", 5, 6),
        ("node_count", 6, nodes as u64),
        ("record_size", 5, 24),
    ] {
        text(out, name);
        number(out, kind, value);
    }
    text(out, "database_type");
    text(out, kind);
    text(out, "description");
    map(out, 1);
    text(out, "en");
    text(out, "made by a test");
    text(out, "languages");
    control(out, 11, 1);
    text(out, "en");
}

fn map(out: &mut Vec<u8>, members: usize) {
    control(out, 7, members);
}

fn text(out: &mut Vec<u8>, text: &str) {
    control(out, 2, text.len());
    out.extend_from_slice(text.as_bytes());
}

fn number(out: &mut Vec<u8>, kind: u8, value: u64) {
    let bytes = value.to_be_bytes();
    let bytes = &bytes[bytes.iter().take_while(|byte| **byte == 0).count()..];
    control(out, kind, bytes.len());
    out.extend_from_slice(bytes);
}

/// The type and the size of what follows.
fn control(out: &mut Vec<u8>, kind: u8, size: usize) {
    assert!(size < 29, "longer ones are written otherwise");
    match kind {
        1..=7 => out.push(kind << 5 | size as u8),
        _ => out.extend_from_slice(&[size as u8, kind - 7]),
    }
}
