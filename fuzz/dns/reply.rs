//! An answer of an upstream: what is given on of it can be read if it could, is no larger than the
//! client takes, and no TTL grows but that of what has expired.
#![no_main]

use hickory_proto::op::Message;
use libfuzzer_sys::fuzz_target;
use vnet_dns::fuzzing::given_on;
use vnet_fuzz::Input;

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input(bytes);
    let how = input.byte();
    let age = (how & 2 == 0).then(|| u32::from(input.short()));
    let request = input.sized();
    let mut reply = input.0.to_vec();
    let Some((out, limit)) = given_on(request, how & 1 == 0, &reply, age) else { return };
    assert!(out.len() <= limit.max(12 + 259 + 11), "{} of {limit}", out.len());
    assert_eq!(out[..2], request[..2]);
    assert!(out[2] & 0x80 != 0);
    if how & 4 != 0 && reply.len() > 3 {
        // What OPT has said is not part of what is given on.
        reply[3] &= 0xf0;
    }
    // What points into the header, where no name is, says something else with another header.
    if reply.get(12..).is_some_and(|rest| rest.windows(2).any(|at| at[0] == 0xc0 && at[1] < 12)) {
        return;
    }
    let Ok(before) = Message::from_vec(&reply) else { return };
    let after = Message::from_vec(&out).expect("it could be read before");
    if after.metadata.truncation || age.is_none() {
        return;
    }
    assert_eq!(after.answers.len(), before.answers.len());
    for (after, before) in after.answers.iter().zip(&before.answers) {
        assert!(after.ttl <= before.ttl);
    }
});
