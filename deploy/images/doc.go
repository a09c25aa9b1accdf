// Command images builds Rollcall's container images, without a Dockerfile and
// without a daemon: static binaries in an OCI layout, and in a tar that any
// version of docker loads.
//
// Its invariant: an image is a function of the sources, the version, the commit
// and the time that it is given. Two builds of the same have the same digest,
// whoever made them and in whatever directory.
//
// It is a module of its own, so that the product's need not know what images
// need.
package main
