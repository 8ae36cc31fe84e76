use crate::certificate;
use crate::openapi::schema::{Schema, hostname, id, like, list, may, must, object, one_of, text, time, whole};
use crate::openapi::{Routes, delete, get, post};

pub(super) fn routes() -> Routes {
    Routes::new()
        .at(
            "/certificates",
            [
                get("List a zone's certificates of origins that are in force", certificate::list, |it| {
                    it.asks("zone_id", id(), "The zone").answers_page_of(shown()).fails([404])
                }),
                post("Sign a certificate for an origin", certificate::create, |it| {
                    it.takes(new()).answers(shown()).fails([404, 500])
                }),
            ],
        )
        .at(
            "/certificates/{certificate}",
            [
                get("Show a certificate of an origin", certificate::one, |it| it.answers(shown())),
                delete("Revoke a certificate of an origin", certificate::revoke, |it| {
                    it.answers(object([must("id", serial()), must("revoked_at", time())]))
                }),
            ],
        )
        .tagged("Certificates of origins")
}

fn serial() -> Schema {
    like("^[1-9][0-9]*$")
}

fn kind() -> Schema {
    one_of(&["origin-rsa", "origin-ecc", "keyless-certificate"])
}

fn new() -> Schema {
    object([
        must("csr", text().least(1).about("A certificate signing request, PEM")),
        must("hostnames", list(hostname()).least(1).most(certificate::MAX_HOSTNAMES)),
        must("request_type", kind()),
        may("requested_validity", whole(7, 5475)).about("Days: 7, 30, 90, 365, 730, 1095 or 5475"),
    ])
    .named("NewCertificate")
}

fn shown() -> Schema {
    object([
        must("id", serial()),
        must("certificate", text()),
        must("csr", text()),
        must("hostnames", list(hostname())),
        must("request_type", kind()),
        must("requested_validity", whole(7, 5475)),
        must("expires_on", time()),
        may("revoked_at", time()),
    ])
    .named("Certificate")
}
