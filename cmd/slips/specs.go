package main

import (
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/modules/all"
)

// specs returns the modules of this program in the order they run.
func specs() []modules.Spec { return all.Specs() }
