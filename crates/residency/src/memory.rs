//! Amounts of memory, on the host and on each device.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// The host, or a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The memory of the host.
    Host,
    /// The memory of the GPU with this index.
    Device(usize),
}

/// An amount of memory on the host and on each device, in bytes. A budget is one too.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Memory {
    /// The bytes on the host.
    pub host: u64,
    /// The bytes on each device, by the index of the GPU.
    pub devices: BTreeMap<usize, u64>,
}

impl Memory {
    /// Returns an amount on the host alone.
    pub fn on_host(bytes: u64) -> Self {
        Self { host: bytes, devices: BTreeMap::new() }
    }

    /// Returns this amount with so many bytes on a device.
    #[must_use]
    pub fn with_device(mut self, index: usize, bytes: u64) -> Self {
        self.devices.insert(index, bytes);
        self
    }

    /// Returns whether this amount fits into another one, in every place.
    pub fn fits_in(&self, room: &Self) -> bool {
        self.short_of(room).is_zero()
    }

    /// Returns what this amount needs beyond another one, in every place.
    pub fn short_of(&self, room: &Self) -> Self {
        self.combined(room, u64::saturating_sub)
    }

    /// Returns the sum of two amounts.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        self.combined(other, u64::saturating_add)
    }

    /// Returns the larger of two amounts in every place.
    #[must_use]
    pub fn max(&self, other: &Self) -> Self {
        self.combined(other, u64::max)
    }

    /// Returns this amount in the places where another one has bytes.
    #[must_use]
    pub fn where_used_by(&self, other: &Self) -> Self {
        self.combined(other, |bytes, others| if others == 0 { 0 } else { bytes })
    }

    /// Returns this amount with the most of all devices on this one alone; as it is without a device.
    #[must_use]
    pub fn all_on(self, device: Option<usize>) -> Self {
        match (device, self.most_on_a_device()) {
            (Some(index), bytes @ 1..) => Self::on_host(self.host).with_device(index, bytes),
            _ => self,
        }
    }

    /// Returns the most bytes on any device.
    pub fn most_on_a_device(&self) -> u64 {
        self.devices.values().copied().max().unwrap_or(0)
    }

    /// Returns whether both amounts have bytes in a common place.
    pub fn shares_a_place(&self, other: &Self) -> bool {
        !self.where_used_by(other).is_zero()
    }

    /// Returns the bytes of all places together.
    pub fn total(&self) -> u64 {
        self.devices.values().fold(self.host, |sum, bytes| sum.saturating_add(*bytes))
    }

    /// Returns whether no place has any bytes.
    pub fn is_zero(&self) -> bool {
        self.total() == 0
    }

    /// Returns the bytes in a place.
    pub fn at(&self, place: Place) -> u64 {
        match place {
            Place::Host => self.host,
            Place::Device(index) => self.devices.get(&index).copied().unwrap_or(0),
        }
    }

    fn combined(&self, other: &Self, combine: impl Fn(u64, u64) -> u64) -> Self {
        let indices = self.devices.keys().chain(other.devices.keys());
        let device = |index: &usize| {
            let place = Place::Device(*index);
            (*index, combine(self.at(place), other.at(place)))
        };
        Self { host: combine(self.host, other.host), devices: indices.map(device).collect() }
    }
}

impl<'a> FromIterator<&'a Memory> for Memory {
    fn from_iter<I: IntoIterator<Item = &'a Memory>>(amounts: I) -> Self {
        amounts.into_iter().fold(Self::default(), |sum, amount| sum.plus(amount))
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gigabytes = |bytes: u64| bytes as f64 / 1e9;
        write!(f, "{:.2} GB", gigabytes(self.host))?;
        self.devices.iter().filter(|(_, bytes)| **bytes > 0).try_for_each(|(index, bytes)| {
            write!(f, " + {:.2} GB on GPU {index}", gigabytes(*bytes))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_amount_fits_only_if_it_fits_in_every_place() {
        let room = Memory::on_host(10).with_device(0, 5);
        assert!(Memory::on_host(10).with_device(0, 5).fits_in(&room));
        assert!(!Memory::on_host(1).with_device(0, 6).fits_in(&room));
        assert!(!Memory::on_host(1).with_device(1, 1).fits_in(&room), "a device without a budget");
        assert!(Memory::default().fits_in(&Memory::default()));
    }

    #[test]
    fn a_shortage_is_that_of_each_place_and_never_negative() {
        let need = Memory::on_host(3).with_device(0, 8);
        let short = need.short_of(&Memory::on_host(9).with_device(0, 5));
        assert_eq!((short.host, short.at(Place::Device(0))), (0, 3));
        assert!(short.shares_a_place(&Memory::default().with_device(0, 1)));
        assert!(!short.shares_a_place(&Memory::on_host(100).with_device(1, 1)));
    }

    #[test]
    fn a_sum_is_shown_with_its_places() {
        let sum: Memory =
            [&Memory::on_host(1_500_000_000), &Memory::default().with_device(1, 2_000_000_000)]
                .into_iter()
                .collect();
        assert_eq!(sum.to_string(), "1.50 GB + 2.00 GB on GPU 1");
    }
}
