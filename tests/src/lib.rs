//! Boots the image and judges what it did.
