// Answers what Kubernetes would: when schedules are due, and which references are images.
//
// It reads questions as JSON from standard input and writes answers to standard output;
// `python -m tests.oracle.update` runs it and keeps what it says in answers.jsonl.
package main

import (
	_ "crypto/sha256" // as the kubelet does, or no digest is known
	_ "crypto/sha512"
	"encoding/json"
	"os"
	"time"

	"github.com/distribution/reference"
	"github.com/robfig/cron/v3"
)

// A Schedule asks for the next times of a cron line after a moment, as the CronJob controller does.
type Schedule struct {
	Schedule string   `json:"schedule"`
	Zone     string   `json:"zone"`
	After    string   `json:"after"`
	Count    int      `json:"count"`
	Times    []string `json:"times"`
}

// An Image asks whether the kubelet can parse a reference.
type Image struct {
	Image string `json:"image"`
	Valid bool   `json:"valid"`
}

const patience = 500 * time.Millisecond

type questions struct {
	Schedules []*Schedule `json:"schedules"`
	Images    []*Image    `json:"images"`
}

func (s *Schedule) answer() {
	s.Times = []string{}
	parsed, err := cron.ParseStandard("TZ=" + s.Zone + " " + s.Schedule)
	if err != nil {
		return
	}
	at, err := time.Parse(time.RFC3339, s.After)
	if err != nil {
		panic(err)
	}
	for range s.Count {
		next := make(chan time.Time, 1)
		go func() { next <- parsed.Next(at) }()
		select {
		case at = <-next:
		case <-time.After(patience):
			// Where midnight is left out, the module can look for it for ever.
			s.Times = append(s.Times, "never ends")
			return
		}
		if at.IsZero() {
			return
		}
		s.Times = append(s.Times, at.UTC().Format(time.RFC3339))
	}
}

func main() {
	var asked questions
	if err := json.NewDecoder(os.Stdin).Decode(&asked); err != nil {
		panic(err)
	}
	for _, s := range asked.Schedules {
		s.answer()
	}
	for _, i := range asked.Images {
		_, err := reference.ParseNormalizedNamed(i.Image)
		i.Valid = err == nil
	}
	out := json.NewEncoder(os.Stdout)
	out.SetEscapeHTML(false)
	if err := out.Encode(asked); err != nil {
		panic(err)
	}
}
