//! Applications over TCP and UDP (section 13 of the API page): kept, checked and shown. No port is opened by them yet.

use registry::{Item, ItemKind};

use super::{Collection, with_times, with_times_described};

pub(crate) static APPLICATIONS: Collection = Collection {
    is_changed: false,
    show: with_times,
    described: with_times_described,
    orders: &[
        ("protocol", |item| item.text("protocol").to_owned()),
        ("app_id", Item::id_text),
        ("created_on", |item| item.created_at.to_string()),
        ("modified_on", |item| item.modified_at.to_string()),
        ("dns", |item| item.terms["dns"]["name"].as_str().unwrap_or_default().to_owned()),
    ],
    ..Collection::new(ItemKind::Application)
};
