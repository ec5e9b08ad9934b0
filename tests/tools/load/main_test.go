package main

import (
	"testing"
	"time"
)

func TestPercentileOfSomeTimes(t *testing.T) {
	taken := []time.Duration{4 * time.Millisecond, time.Millisecond, 3 * time.Millisecond}
	if got := percentile(taken, 0.5); got != 3 {
		t.Errorf("the median is %v", got)
	}
	if got := percentile(taken, 0.99); got != 3 {
		t.Errorf("the tail is %v", got)
	}
	if got := percentile(nil, 0.5); got != 0 {
		t.Errorf("of nothing it is %v", got)
	}
}

func TestValuesHaveTheirSize(t *testing.T) {
	if got := len(value(7)); got != *size {
		t.Errorf("%d bytes", got)
	}
}
