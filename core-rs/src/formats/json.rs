//! JSON as formats need it: objects with each key once, and lists that cannot grow beyond a limit.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::stored::{MAX_DIMS, MAX_TENSORS};

/// An object of values of one type, with at most [`MAX_TENSORS`] of them.
pub(super) struct Object<T>(pub BTreeMap<String, T>);

impl<T> Object<T> {
    /// Adds a member. A key that comes twice is an error: two readers could believe different values.
    pub fn insert<E: Error>(&mut self, key: String, value: T) -> Result<(), E> {
        if self.0.len() >= MAX_TENSORS {
            return Err(E::custom(format_args!("expected at most {MAX_TENSORS} keys, got more")));
        }
        if self.0.contains_key(&key) {
            return Err(E::custom(format_args!("expected each key once, got {key:?} twice")));
        }
        self.0.insert(key, value);
        Ok(())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor(PhantomData))
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = Object<T>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Object<T>, A::Error> {
        let mut members = Object(BTreeMap::new());
        while let Some((key, value)) = access.next_entry()? {
            members.insert(key, value)?;
        }
        Ok(members)
    }
}

/// The dimensions of a tensor, at most [`MAX_DIMS`].
pub(super) struct Shape(pub Vec<usize>);

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(ShapeVisitor)
    }
}

struct ShapeVisitor;

impl<'de> Visitor<'de> for ShapeVisitor {
    type Value = Shape;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "a list of at most {MAX_DIMS} sizes")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Shape, A::Error> {
        let mut dims = Vec::new();
        while let Some(dim) = access.next_element()? {
            if dims.len() >= MAX_DIMS {
                return Err(A::Error::invalid_length(dims.len() + 1, &self));
            }
            dims.push(dim);
        }
        Ok(Shape(dims))
    }
}
