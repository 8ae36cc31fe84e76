use registry::{NewRecord, Record, RecordContent, RecordType};

use crate::openapi::schema::{
    Schema, count, flag, hostname, id, integer, like, list, may, must, object, one_of, text, time, whole,
};
use crate::openapi::{About, Routes, delete, get, patch, post, put};
use crate::record::{self, zonefile};

pub(super) fn routes() -> Routes {
    const PATH: &str = "/zones/{zone}/dns_records";
    let at = |rest: &str| format!("{PATH}{rest}");
    Routes::new()
        .at(
            PATH,
            [
                get("List DNS records", record::list, |it| filters(it).answers_page_of(shown()).fails([503])),
                post("Make a DNS record", record::create, |it| it.takes(new()).answers(shown())),
            ],
        )
        .at(
            &at("/batch"),
            [post("Edit many DNS records, all or none", record::batch, |it| it.takes(batch()).answers(edited()))],
        )
        .at(
            &at("/export"),
            [get("Write the zone as text", zonefile::export, |it| it.answers_text("text/plain; charset=utf-8", &[]))],
        )
        .at(
            &at("/import"),
            [post("Add the records of a zone file that are not there yet", zonefile::import, |it| {
                it.takes_content([("multipart/form-data", form()), ("text/plain", text())])
                    .answers(object([must("recs_added", count()), must("total_records_parsed", count())]))
            })],
        )
        .at(
            &at("/{record}"),
            [
                get("Show a DNS record", record::one, |it| it.answers(shown())),
                put("Replace a DNS record", record::replace, |it| it.takes(new()).answers(shown())),
                patch("Change a DNS record", record::change, |it| it.takes_change_of(body()).answers(shown())),
                delete("Remove a DNS record", record::delete, |it| it.answers(object([must("id", id())]))),
            ],
        )
        .tagged("DNS records")
}

fn filters(list: About) -> About {
    const TEXTS: [&str; 4] = ["name", "content", "comment", "tag"];
    const TESTS: [&str; 5] = ["", ".exact", ".contains", ".startswith", ".endswith"];
    let texts = TEXTS.iter().flat_map(|name| TESTS.map(|test| format!("{name}{test}")));
    let list = texts.fold(list, |list, name| list.query(name, text(), "Only those that have it so"));
    let there = ["comment.present", "comment.absent", "tag.present", "tag.absent"];
    let list = there.into_iter().fold(list, |list, name| list.query(name, text(), "Only those with or without it"));
    list.query("type", text(), "Only those of this type")
        .query("proxied", flag(), "Only those that are, or are not")
        .query("search", text(), "In any of name, content, type, comment and tags")
        .query("match", text(), "`any`: one of these is enough")
        .query("tag_match", text(), "`any`: one of the conditions about tags is enough")
        .query("order", text(), "type, name, content, ttl or proxied; else in the order in which they were made")
        .query("direction", text(), "`desc` for the last first")
}

fn kind() -> Schema {
    one_of(&RecordType::ALL.map(RecordType::name))
}

fn settings() -> Schema {
    object([may("ipv4_only", flag()), may("ipv6_only", flag()), may("flatten_cname", flag())])
}

/// What both a body and an answer have.
fn body() -> Schema {
    let tag = text().least(1).most(NewRecord::MAX_TAG_CHARS);
    object([
        must("type", like("^\\s*[A-Za-z]+\\s*$").about("A, AAAA, CNAME, …, as answers have it")),
        must("name", text().least(1)).about("In full, relative to the zone, or @"),
        may("content", text().most(RecordContent::MAX_BYTES)),
        may("data", object([])).about("Instead of content, by the parts that the type has"),
        may("ttl", whole(1, Record::MAX_TTL.into())).about("Seconds; 1 is automatic, others are from 60"),
        may("proxied", flag()),
        may("priority", whole(0, 65_535)),
        may("comment", text().most(NewRecord::MAX_COMMENT_CHARS)),
        may("tags", list(tag).most(NewRecord::MAX_TAGS)),
        may("settings", settings()),
    ])
    .named("Record")
}

fn new() -> Schema {
    body()
}

fn shown() -> Schema {
    object([
        must("id", id()),
        must("zone_id", id()),
        must("zone_name", hostname()),
        must("name", hostname()),
        must("type", kind()),
        must("content", text()),
        may("priority", integer(0, 65_535)),
        may("data", object([])),
        must("proxiable", flag()),
        must("proxied", flag()),
        must("ttl", integer(1, Record::MAX_TTL.into())),
        must("settings", settings()),
        must("meta", object([])),
        must("comment", text().or_null()),
        must("tags", list(text())),
        must("created_on", time()),
        must("modified_on", time()),
        may("comment_modified_on", time()),
        may("tags_modified_on", time()),
    ])
    .named("Record")
}

fn batch() -> Schema {
    let some = |of: Schema| list(of).most(record::MAX_MEMBERS);
    let named = || must("id", id());
    object([
        may("deletes", some(object([named()]))),
        may("patches", some(body().changes().with([named()]).named("RecordOfBatch"))),
        may("puts", some(body().with([named()]).named("WholeRecordOfBatch"))),
        may("posts", some(body())),
    ])
    .named("Batch")
}

fn edited() -> Schema {
    object(["deletes", "patches", "puts", "posts"].map(|name| must(name, list(shown()))))
}

fn form() -> Schema {
    object([
        must("file", text().about("The zone file")),
        may("proxied", one_of(&["", "0", "1", "false", "true"])).about("Whether what can be proxied is to be"),
    ])
}
