//! How a byte stream says that it is a flow: the name of its service is `<id>._udp.<service>`, the id in 32 hexadecimal
//! digits. No host has such a name, since a label of one begins with no underscore.

use uuid::Uuid;

/// What stands in the middle of such a name, as in those of SRV records.
const MIDDLE: &str = "._udp.";

/// Bytes of an id.
const ID: usize = 32;

/// Bytes that such a name has beyond its service's.
pub(crate) const OVERHEAD: usize = ID + MIDDLE.len();

/// The name of a flow to a service.
pub(crate) fn write(id: Uuid, service: &str) -> String {
    format!("{}{MIDDLE}{service}", id.simple())
}

/// Id and service, if it is such a name.
pub(crate) fn read(name: &str) -> Option<(Uuid, &str)> {
    let (id, service) = name.split_once(MIDDLE)?;
    let written = id.len() == ID && !service.is_empty();
    Some((Uuid::try_parse(id).ok().filter(|_| written)?, service))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_flows_are_read_as_such() {
        let id = Uuid::from_u128(0x0123_4567_89ab_cdef);
        let name = write(id, "game.example.test");
        assert_eq!(name.len(), OVERHEAD + "game.example.test".len());
        assert_eq!(read(&name), Some((id, "game.example.test")));
        for other in ["game.example.test", "_udp.a", "x._udp.a", "._udp.", &name[1..], &name[..OVERHEAD]] {
            assert_eq!(read(other), None, "{other}");
        }
    }
}
