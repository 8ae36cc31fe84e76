//! The messages that the two cores send, as bytes. Fields are set in the order in which the reference lays them out.

use bytes::Bytes;
use capnp::any_pointer;
use capnp::message::{Builder, HeapAllocator};
use capnp_rpc::rpc_capnp::{call, disembargo, exception, message, message_target};

use super::ProtocolError;
use super::method::Method;
use crate::schema::stream;

/// Words of the first segment: enough for a call to register, the longest of the common messages.
const FIRST_SEGMENT: u32 = 128;

/// What a call is made on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// The bootstrap capability that this question asks for.
    Promised(u32),
    /// A capability of the other end.
    Imported(u32),
}

pub(super) fn bootstrap(question: u32) -> Bytes {
    build(|root| root.init_bootstrap().set_question_id(question))
}

pub(super) fn call(
    question: u32,
    target: Target,
    method: Method,
    params: impl FnOnce(any_pointer::Builder<'_>),
) -> Bytes {
    build(|root| {
        let mut call: call::Builder<'_> = root.init_call();
        call.set_question_id(question);
        call.set_interface_id(method.interface);
        call.set_method_id(method.ordinal);
        match target {
            Target::Promised(question) => {
                let mut promise = call.reborrow().init_target().init_promised_answer();
                promise.set_question_id(question);
                promise.init_transform(0);
            }
            Target::Imported(id) => call.reborrow().init_target().set_imported_cap(id),
        }
        let mut payload = call.init_params();
        params(payload.reborrow().init_content());
        payload.init_cap_table(0);
    })
}

pub(super) fn finish(question: u32, release_result_caps: bool) -> Bytes {
    build(|root| {
        let mut finish = root.init_finish();
        finish.set_question_id(question);
        finish.set_release_result_caps(release_result_caps);
    })
}

pub(super) fn release(id: u32, references: u32) -> Bytes {
    build(|root| {
        let mut release = root.init_release();
        release.set_id(id);
        release.set_reference_count(references);
    })
}

pub(super) fn abort(reason: &str) -> Bytes {
    build(|root| root.init_abort().set_reason(reason))
}

/// The answer to Bootstrap: one capability hosted here, under export id 0.
///
/// These are constant words but for the answer's id. The runtime would want an object behind the capability, which
/// nothing in here has.
pub(super) fn bootstrap_return(answer: u32) -> Bytes {
    const WORDS: [u64; 12] = [
        0x0000_000b_0000_0000, // one segment of eleven words
        0x0001_0001_0000_0000, // root: one word of data, one pointer
        0x0000_0000_0000_0003, // Message.return
        0x0001_0002_0000_0000, // to two words of data, one pointer
        0x0000_0001_0000_0000, // the answer's id in the lower half; releaseParamCaps false
        0x0000_0000_0000_0000, // Return.results
        0x0002_0000_0000_0000, // to a payload of two pointers
        0x0000_0000_0000_0003, // content: capability 0 of the table
        0x0000_0017_0000_0001, // table: a list of composites, two words
        0x0001_0001_0000_0004, // tag: one element, one word of data, one pointer
        0x0000_0000_0000_0001, // CapDescriptor.senderHosted, export id 0
        0x0000_0000_0000_0000,
    ];
    const ANSWER: usize = 4;
    let mut words = WORDS;
    words[ANSWER] |= u64::from(answer);
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

pub(super) fn results(answer: u32, results: impl FnOnce(any_pointer::Builder<'_>)) -> Bytes {
    build(|root| {
        let mut reply = root.init_return();
        reply.set_answer_id(answer);
        reply.set_release_param_caps(false);
        let mut payload = reply.init_results();
        results(payload.reborrow().init_content());
        payload.init_cap_table(0);
    })
}

/// Params that hold capabilities are released with the answer: nothing in here can use them.
pub(super) fn exception(answer: u32, kind: exception::Type, reason: &str) -> Bytes {
    build(|root| {
        let mut reply = root.init_return();
        reply.set_answer_id(answer);
        let mut exception = reply.init_exception();
        exception.set_type(kind);
        exception.set_reason(reason);
    })
}

/// Sends a message back that is not understood.
pub(super) fn unimplemented(original: message::Reader<'_>) -> Result<Bytes, ProtocolError> {
    let mut builder = Builder::new(HeapAllocator::new().first_segment_words(FIRST_SEGMENT));
    builder.init_root::<message::Builder<'_>>().set_unimplemented(original)?;
    Ok(stream::write(&[], &builder))
}

/// Reflects a disembargo (its meaning: everything sent before it has arrived).
pub(super) fn disembargo(target: message_target::Reader<'_>, id: u32) -> Result<Bytes, ProtocolError> {
    let mut builder = Builder::new(HeapAllocator::new().first_segment_words(FIRST_SEGMENT));
    let mut reply: disembargo::Builder<'_> = builder.init_root::<message::Builder<'_>>().init_disembargo();
    reply.set_target(target)?;
    reply.init_context().set_receiver_loopback(id);
    Ok(stream::write(&[], &builder))
}

fn build(fill: impl FnOnce(message::Builder<'_>)) -> Bytes {
    let mut builder = Builder::new(HeapAllocator::new().first_segment_words(FIRST_SEGMENT));
    fill(builder.init_root());
    stream::write(&[], &builder)
}
