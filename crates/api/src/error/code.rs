use super::*;

/// What a failure says beside its status.
pub(crate) struct Code {
    pub(crate) number: u32,
    /// With which it comes.
    pub(crate) statuses: &'static [u16],
    pub(crate) meaning: &'static str,
}

const fn code(number: u32, statuses: &'static [u16], meaning: &'static str) -> Code {
    Code { number, statuses, meaning }
}

/// All of them.
pub(crate) const CODES: [Code; 33] = [
    code(MALFORMED_AUTHORIZATION, &[400], "the Authorization header is not `Bearer` and a token"),
    code(NO_CREDENTIALS, &[400], "there are no credentials"),
    code(MALFORMED_BODY, &[400], "the body is not as expected"),
    code(NOT_VALID, &[400], "a value in the body or the query will not do; the message names it"),
    code(NO_ZONE_OF_NAME, &[400], "a name lies in no zone that the token may use"),
    code(CONNECTED, &[400], "the tunnel has connections"),
    code(TOO_MANY_ITEMS, &[400], "there are as many of these as there may be"),
    code(ZONE_EXISTS, &[400], "there is such a zone already"),
    code(TOO_MANY_RECORDS, &[400], "there are as many records as there may be"),
    code(RECORD_IN_THE_WAY, &[400], "another record is in the way"),
    code(CNAME_IN_THE_WAY, &[400], "a CNAME is in the way"),
    code(RECORD_EXISTS, &[400], "there is such a record already"),
    code(IDENTICAL_RECORD_EXISTS, &[400], "there is the same record already"),
    code(VERIFY_INVALID_TOKEN, &[401], "the token that was to be verified is not valid"),
    code(UNKNOWN_KEY, &[403], "the key is none of this edge's tokens"),
    code(INVALID_TOKEN, &[403], "the token is not valid, or not from there"),
    code(NOT_ALLOWED, &[403], "the token lacks the permission, or this is switched off"),
    code(ZONE_NOT_ALLOWED, &[403], "the token lacks the permission in the zone"),
    code(NO_PATH, &[404], "there is nothing at that path"),
    code(NO_OBJECT, &[404], "there is no such thing, or the token may not see it"),
    code(NO_ENTRY_POINT, &[404], "nobody has written rules for the phase"),
    code(NO_RECORD, &[404], "there is no such record"),
    code(NO_METHOD, &[405], "the method does nothing at that path"),
    code(TOO_SLOW, &[408], "the body did not come in time"),
    code(NAME_TAKEN, &[409], "another one has what was wanted"),
    code(STANDS_ALONE, &[409], "the registry is this node's alone"),
    code(STILL_TRUSTED, &[409], "an authority before this one is still trusted"),
    code(MOVED_ON, &[412], "somebody else was faster"),
    code(REFERENCED, &[412], "something else refers to it"),
    code(NOT_OFFERED, &[422], "the original offers this, and this edge does not"),
    code(TOO_LARGE, &[413], "the body, or what it asks for, is too large"),
    code(TOO_MANY, &[429, 503], "too many calls, or too many quick tunnels; `Retry-After` says when to try again"),
    code(ENGINE, &[500, 503], "the registry, or this node, failed; `Retry-After` says that nothing was done"),
];
