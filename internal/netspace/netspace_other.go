//go:build !linux

package netspace
