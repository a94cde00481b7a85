//! The vault: where secrets rest.
//!
//! - [`keys`]: where the key-encryption key comes from;
//! - [`store`]: durable bytes under keys, with compare-and-set, on sled, in
//!   PostgreSQL or in memory;
//! - [`vault`]: records of the core, sealed into such a store;
//! - [`damage`]: what is found wrong, and what is done about it;
//! - [`backup`]: everything in one sealed file, and a store made from it;
//! - [`audit`]: the audit log, kept in the vault.
//!
//! # How a record is sealed
//! A random root key is made with the store and kept in it, wrapped by the
//! key-encryption key. From it come the key that hashes record keys, one key
//! per kind for the public halves, and the key of the head. A secret half has
//! a data key of its own, wrapped by the key-encryption key; removing the
//! secret or the record destroys that data key. Everything is bound to layout,
//! kind, partition, name, revision and expiry, so that a record moved to
//! another place, or an old half beside a new one, does not open.
//!
//! # What the head notices
//! One sealed record, written with every batch, holds the count and a keyed sum
//! of all records' revisions and nonces. A record that is put back, removed or
//! added by somebody who only has the disk breaks that sum, and the vault does
//! not open. A whole database put back in one piece is sound in itself; sled's
//! `acknowledged` file notices it unless it was put back too, and hosts that
//! run on PostgreSQL notice it by the name of the last batch they heard of.
//!
//! Several processes on one database take turns: a batch is judged, and the
//! head made, from what is read under the database's one write lock.
#![forbid(unsafe_code)]

pub mod audit;
pub mod backup;
pub mod damage;
pub mod error;
pub mod keys;
pub mod store;
pub mod vault;

mod head;
mod layout;
mod seal;
