//! How much of an event's payload an endpoint is sent: fewer allocations, no addresses of clients. What is left stands to
//! the byte as it stood.

use std::{borrow::Cow, fmt};

use bytes::Bytes;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, Visitor},
    ser::SerializeMap,
};
use serde_json::value::RawValue;
use turnhook_reducer::outbox::Include;

/// Allocations that are listed by default.
const USUAL: u32 = 25;
/// Usernames that are listed.
const USERNAMES: usize = 10;
/// A body with no more allocations than are usual is no larger than this, in bytes: more of them are left out.
const LARGEST: usize = 20_000;
/// A body this small has neither more allocations nor more usernames than are ever listed.
const SMALL: usize = 3_000;

/// The payload as an endpoint is sent it. The same bytes give the same bytes.
#[must_use]
pub fn included(body: &Bytes, include: Include) -> Bytes {
    let plain = include.addresses && include.allocations >= USERNAMES as u32;
    if plain && body.len() < SMALL {
        return body.clone();
    }
    match reduced(body, include) {
        Ok(Some(body)) => body,
        Ok(None) => body.clone(),
        Err(error) => {
            turnhook_reducer::internal_error!("a payload cannot be read again: {error}");
            body.clone()
        }
    }
}

/// `None` where all of it is sent.
fn reduced(body: &[u8], include: Include) -> serde_json::Result<Option<Bytes>> {
    // Names may be so long, and so full of what JSON escapes, that ten of them alone are too large.
    let mut names = USERNAMES;
    loop {
        let reduced = with_names(body, include, names)?;
        let size = reduced.as_ref().map_or(body.len(), Bytes::len);
        if size <= LARGEST || names == 1 || include.allocations > USUAL {
            return Ok(reduced);
        }
        names -= 1;
    }
}

fn with_names(body: &[u8], include: Include, names: usize) -> serde_json::Result<Option<Bytes>> {
    let mut owned = Owned::default();
    let envelope: Fields<'_> = serde_json::from_slice(body)?;
    let Some(data) = envelope.get("data") else {
        return Ok(None);
    };
    let mut data: Fields<'_> = serde_json::from_str(data.get())?;
    let (Some(listed), Some(omitted)) = (data.get("allocations"), data.get("allocations_omitted")) else {
        return Ok(None);
    };
    let listed: Vec<&RawValue> = serde_json::from_str(listed.get())?;
    let omitted: u64 = serde_json::from_str(omitted.get())?;
    let fewer_names = usernames(&mut data, &mut owned, names)?;
    let mut by_size = Vec::new();
    for allocation in &listed {
        by_size.push((std::cmp::Reverse(relayed(allocation)?), *allocation));
    }
    by_size.sort_by_key(|(relayed, _)| *relayed);
    let by_size: Vec<&RawValue> = by_size.into_iter().map(|(_, allocation)| allocation).collect();
    let mut keep = listed.len().min(include.allocations as usize);
    loop {
        // Where all are listed, in the order in which they opened.
        let kept = if keep == listed.len() {
            &listed[..]
        } else {
            &by_size[..keep]
        };
        let changed = fewer_names || keep < listed.len() || !include.addresses;
        let text = with_allocations(
            &envelope,
            &data,
            kept,
            omitted + (listed.len() - keep) as u64,
            include,
        )?;
        if text.len() <= LARGEST || keep == 0 || include.allocations > USUAL {
            return Ok(changed.then(|| text.into()));
        }
        keep -= 1;
    }
}

fn with_allocations(
    envelope: &Fields<'_>,
    data: &Fields<'_>,
    kept: &[&RawValue],
    omitted: u64,
    include: Include,
) -> serde_json::Result<Vec<u8>> {
    let mut texts = Vec::new();
    for allocation in kept {
        texts.push(if include.addresses {
            allocation.get().to_owned()
        } else {
            // Null and not left out: the schema has it in every allocation.
            let mut fields: Fields<'_> = serde_json::from_str(allocation.get())?;
            fields.set("client_address", RawValue::NULL);
            serde_json::to_string(&fields)?
        });
    }
    let (listed, count) = (raw(format!("[{}]", texts.join(",")))?, raw(omitted.to_string())?);
    let mut data = data.clone();
    data.set("allocations", &listed);
    data.set("allocations_omitted", &count);
    let data = raw(serde_json::to_string(&data)?)?;
    let mut envelope = envelope.clone();
    envelope.set("data", &data);
    serde_json::to_vec(&envelope)
}

/// At most so many, and how many more there are.
fn usernames<'a>(data: &mut Fields<'a>, owned: &'a mut Owned, most: usize) -> serde_json::Result<bool> {
    let Some(listed) = data.get("usernames") else {
        return Ok(false);
    };
    let names: Vec<&RawValue> = serde_json::from_str(listed.get())?;
    let before = data
        .get("usernames_omitted")
        .map(|count| serde_json::from_str::<u64>(count.get()));
    let Some(left_out) = names.len().checked_sub(most).filter(|count| *count > 0) else {
        return Ok(false);
    };
    let kept: Vec<&str> = names.iter().take(most).map(|name| name.get()).collect();
    let count = left_out as u64 + before.transpose()?.unwrap_or(0);
    owned.0 = vec![raw(format!("[{}]", kept.join(",")))?, raw(count.to_string())?];
    if let [names, count] = &owned.0[..] {
        data.set("usernames", names);
        data.set("usernames_omitted", count);
    }
    Ok(true)
}

/// How much an allocation carried, on both legs.
fn relayed(allocation: &RawValue) -> serde_json::Result<u64> {
    #[derive(Deserialize)]
    struct Leg {
        received_bytes: u64,
        sent_bytes: u64,
    }
    #[derive(Deserialize)]
    struct Usage {
        client: Leg,
        peer: Option<Leg>,
    }
    #[derive(Deserialize)]
    struct Allocation {
        usage: Usage,
    }
    let Allocation { usage } = serde_json::from_str(allocation.get())?;
    let legs = [Some(usage.client), usage.peer];
    Ok(legs
        .into_iter()
        .flatten()
        .map(|leg| leg.received_bytes.saturating_add(leg.sent_bytes))
        .fold(0, u64::saturating_add))
}

/// JSON that was made here, for as long as it is pointed to.
#[derive(Default)]
struct Owned(Vec<Box<RawValue>>);

fn raw(text: String) -> serde_json::Result<Box<RawValue>> {
    RawValue::from_string(text)
}

/// An object's fields in their order.
#[derive(Clone, Debug)]
struct Fields<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Fields<'a> {
    fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.0
            .iter()
            .find(|(field, _)| field == name)
            .map(|(_, value)| *value)
    }

    /// In its place, or right after the field whose name this one's begins with.
    fn set(&mut self, name: &'static str, value: &'a RawValue) {
        if let Some((_, field)) = self.0.iter_mut().find(|(field, _)| field == name) {
            *field = value;
            return;
        }
        let after = self.0.iter().position(|(field, _)| name.starts_with(&**field));
        let at = after.map_or(self.0.len(), |at| at + 1);
        self.0.insert(at, (Cow::Borrowed(name), value));
    }
}

impl Serialize for Fields<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Fields<'a>, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
                let mut fields = Vec::new();
                while let Some(name) = map.next_key::<Cow<'de, str>>()? {
                    fields.push((name, map.next_value::<&'de RawValue>()?));
                }
                Ok(Fields(fields))
            }
        }
        from.deserialize_map(InOrder)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use serde_json::Value;
    use turnhook_reducer::{event::EventType, time::Timestamp, usage::Counters};

    use super::*;
    use crate::{
        body::body,
        samples::{self, Case},
    };

    const NOW: Timestamp = Timestamp(1_795_327_257_624);

    fn parsed(body: &Bytes) -> Value {
        serde_json::from_slice(body).unwrap()
    }

    fn of(allocations: u32, addresses: bool) -> Include {
        Include {
            allocations,
            addresses,
        }
    }

    #[test]
    fn what_need_not_be_less_is_not_touched() {
        for event_type in [EventType::Start, EventType::Usage, EventType::End] {
            let whole = body(&samples::event(event_type, Case::Exact, NOW));
            assert_eq!(included(&whole, Include::default()), whole);
            assert_eq!(included(&whole, of(1, true)), whole);
        }
    }

    #[test]
    fn those_that_relayed_most_are_listed_and_the_rest_is_counted() {
        let mut event = samples::event(EventType::End, Case::Many, NOW);
        event.allocations[40].usage.peer = Counters {
            sent_bytes: 7_000_000,
            ..Counters::default()
        };
        let whole = body(&event);
        assert!(whole.len() > LARGEST);
        let sent = included(&whole, Include::default());
        assert!(sent.len() <= LARGEST, "{}", sent.len());
        let (before, after) = (parsed(&whole), parsed(&sent));
        let listed = after["data"]["allocations"].as_array().unwrap();
        assert_eq!(listed.len(), 25);
        assert_eq!(listed[0], before["data"]["allocations"][40]);
        assert_eq!(listed[1], before["data"]["allocations"][0]);
        assert_eq!(after["data"]["allocations_omitted"], 950 + 25);
        assert_eq!(after["data"]["usernames"].as_array().unwrap().len(), 10);
        assert_eq!(after["data"]["usernames_omitted"], 40);
        for field in ["usage", "usage_delta", "session_id", "user", "started_at"] {
            assert_eq!(after["data"][field], before["data"][field], "{field}");
        }
        assert_eq!(
            sent,
            included(&whole, Include::default()),
            "the same bytes each time"
        );
        // All that it may list, if that is asked for.
        let more = parsed(&included(&whole, of(50, true)));
        assert_eq!(more["data"]["allocations"].as_array().unwrap().len(), 50);
    }

    #[test]
    fn usernames_as_long_as_coturn_allows_leave_room_for_few_allocations() {
        let mut event = samples::event(EventType::End, Case::Many, NOW);
        let long = |n: usize| format!("{n:0>514}").into_bytes().into_boxed_slice();
        event.usernames = (0..50).map(long).collect();
        for (n, allocation) in event.allocations.iter_mut().enumerate() {
            allocation.username = long(n);
        }
        event.allocations.truncate(24);
        let sent = included(&body(&event), Include::default());
        assert!(sent.len() <= LARGEST, "{}", sent.len());
        let listed = parsed(&sent)["data"]["allocations"].as_array().unwrap().len() as u64;
        assert!(listed > 5, "{listed}");
        assert_eq!(parsed(&sent)["data"]["allocations_omitted"], 950 + 24 - listed);
    }

    #[test]
    fn usernames_that_grow_in_json_leave_room_for_fewer_of_them() {
        let mut event = samples::event(EventType::End, Case::Many, NOW);
        event.usernames = (0..10)
            .map(|n| [&[1; 1023][..], &[n]].concat().into_boxed_slice())
            .collect();
        let whole = body(&event);
        assert!(whole.len() > 60_000, "{}", whole.len());
        let sent = included(&whole, Include::default());
        assert!(sent.len() <= LARGEST, "{}", sent.len());
        let listed = parsed(&sent)["data"]["usernames"].as_array().unwrap().len();
        assert!((1..10).contains(&listed), "{listed}");
        assert_eq!(parsed(&sent)["data"]["usernames_omitted"], 10 - listed);
        assert_eq!(sent, included(&sent, Include::default()), "not once more");
    }

    #[test]
    fn no_allocations_and_no_addresses() {
        let whole = body(&samples::event(EventType::End, Case::Exact, NOW));
        let none = parsed(&included(&whole, of(0, true)));
        assert_eq!(none["data"]["allocations"], serde_json::json!([]));
        assert_eq!(none["data"]["allocations_omitted"], 1);
        let sent = included(&whole, of(25, false));
        assert!(!String::from_utf8_lossy(&sent).contains("198.51.100.1"));
        let mut expected = parsed(&whole);
        let allocation = expected["data"]["allocations"][0].as_object_mut().unwrap();
        *allocation.get_mut("client_address").unwrap() = Value::Null;
        assert_eq!(parsed(&sent), expected);
        // The order of the fields is that of before.
        let at = |text: &str| String::from_utf8_lossy(&sent).find(text).unwrap();
        assert!(at("\"session_id\"") < at("\"realm\"") && at("\"usage\"") < at("\"allocations\""));
    }
}
