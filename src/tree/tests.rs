//! Property tests of the trees against plain maps.
