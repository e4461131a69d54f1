package bpf

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/net/bpf"
)

// Program is a program that was checked and can be run. Any number of
// goroutines may use it.
type Program struct{ code []bpf.RawInstruction }

// NewProgram checks a program as the kernel does when one is attached: it ends,
// stays within its memory and uses known instructions. It must not ask for what
// Linux knows beside a packet's bytes, which a file does not have.
func NewProgram(code []bpf.RawInstruction) (*Program, error) {
	if len(code) == 0 || len(code) > maxProgram {
		return nil, fmt.Errorf("packet filter: a program of %d instructions; it has 1 to %d", len(code), maxProgram)
	}
	for i, c := range code {
		if err := check(c, len(code)-i-1); err != "" {
			return nil, fmt.Errorf("packet filter: instruction %d (%#x): %s", i, c.Op, err)
		}
	}
	if last := code[len(code)-1].Op; last != opRet && last != opRetA {
		return nil, fmt.Errorf("packet filter: the program does not end with a return")
	}
	return &Program{append([]bpf.RawInstruction{}, code...)}, nil
}

// The opcodes that programs of others may have beside those that this package
// makes.
const (
	opRetA  = 0x16
	opTxa   = 0x87
	opLdxK  = 0x01
	opLdxM  = 0x61
	opLdxL  = 0x81
	opStx   = 0x03
	aluMask = 0xf0
)

// check reports what is wrong with an instruction that has rest others behind it.
func check(c bpf.RawInstruction, rest int) string {
	switch c.Op {
	case opLdW, opLdH, opLdB:
		if c.K >= adOff {
			return "it asks for what a file does not have"
		}
		return ""
	case opLdMem, opLdxM, opSt, opStx:
		if c.K >= scratchWords {
			return "a word of memory that is not there"
		}
		return ""
	case opJa:
		if uint64(c.K) >= uint64(rest) { //nolint:gosec // not negative
			return "a jump behind the end"
		}
		return ""
	case opLdLen, opIndW, opIndW | 8, opIndW | 0x10, opLdImm, opMshX, opTax, opTxa, opLdxK, opLdxL, opRet, opRetA, opNeg:
		return ""
	}
	switch c.Op & 7 {
	case opAlu:
		switch op := c.Op & aluMask; {
		case c.Op&^uint16(aluMask|withX) != opAlu || op > aluOps["^"] || op == 0x80:
			return "unknown"
		case c.Op&withX == 0 && c.K == 0 && (op == aluOps["/"] || op == aluOps["%"]):
			return "division by zero"
		case c.Op&withX == 0 && c.K > 31 && (op == aluOps["<<"] || op == aluOps[">>"]):
			return "a shift by more than 31 bits"
		}
		return ""
	case opJa:
		switch c.Op &^ withX {
		case opJeq, opJgt, opJge, opJset:
			if int(c.Jt) >= rest || int(c.Jf) >= rest {
				return "a jump behind the end"
			}
			return ""
		}
	}
	return "unknown"
}

// Match reports whether the program accepts a packet of which data was
// captured and which had the given length on the wire. What a program reads
// beyond data, or a division by zero, rejects the packet.
func (p *Program) Match(data []byte, length int) bool { return p.run(data, length) != 0 }

// run returns what the program returns.
func (p *Program) run(data []byte, length int) uint32 {
	var a, x uint32
	var m [scratchWords]uint32
	length = max(length, len(data))
	size := uint64(len(data))
	for i := 0; i < len(p.code); i++ {
		c := p.code[i]
		at := uint64(c.K)
		switch c.Op {
		case opIndW, opIndW | 8, opIndW | 0x10:
			at += uint64(x)
		}
		switch c.Op {
		case opLdW, opIndW:
			if at+4 > size {
				return 0
			}
			a = binary.BigEndian.Uint32(data[at:])
		case opLdH, opIndW | 8:
			if at+2 > size {
				return 0
			}
			a = uint32(binary.BigEndian.Uint16(data[at:]))
		case opLdB, opIndW | 0x10:
			if at >= size {
				return 0
			}
			a = uint32(data[at])
		case opMshX:
			if at >= size {
				return 0
			}
			x = uint32(data[at]&15) << 2
		case opLdLen:
			a = uint32(length) //nolint:gosec // a packet's
		case opLdxL:
			x = uint32(length) //nolint:gosec // a packet's
		case opLdImm:
			a = c.K
		case opLdxK:
			x = c.K
		case opLdMem:
			a = m[c.K]
		case opLdxM:
			x = m[c.K]
		case opSt:
			m[c.K] = a
		case opStx:
			m[c.K] = x
		case opTax:
			x = a
		case opTxa:
			a = x
		case opNeg:
			a = -a
		case opJa:
			i += int(c.K)
		case opRet:
			return c.K
		case opRetA:
			return a
		default:
			k := c.K
			if c.Op&withX != 0 {
				k = x
			}
			if c.Op&7 == opJa {
				if compare(c.Op&^withX, a, k) {
					i += int(c.Jt)
				} else {
					i += int(c.Jf)
				}
				continue
			}
			var ok bool
			if a, ok = alu(c.Op&aluMask, a, k); !ok {
				return 0
			}
		}
	}
	return 0
}

// alu calculates as Linux does, which takes shifts modulo 32.
func alu(op uint16, a, k uint32) (uint32, bool) {
	switch op {
	case 0x00:
		return a + k, true
	case 0x10:
		return a - k, true
	case 0x20:
		return a * k, true
	case 0x40:
		return a | k, true
	case 0x50:
		return a & k, true
	case 0x60:
		return a << (k & 31), true
	case 0x70:
		return a >> (k & 31), true
	case 0xa0:
		return a ^ k, true
	case 0x30:
		if k != 0 {
			return a / k, true
		}
	case 0x90:
		if k != 0 {
			return a % k, true
		}
	}
	return 0, false
}
