//! placeholder, replaced in the first hour
