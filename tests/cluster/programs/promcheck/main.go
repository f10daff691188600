// promcheck does what `promtool check rules` and `promtool check metrics` do, with the same packages but without the
// clients of two dozen clouds that promtool links and that take many minutes to compile.
//
//	promcheck rules      check the rule file on standard input; print the selectors of its expressions, one a line
//	promcheck exprs      the same for a JSON list of PromQL expressions
//	promcheck metrics    lint the exposition on standard input
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
)

func main() {
	if len(os.Args) != 2 {
		fail("usage: promcheck rules|exprs|metrics <FILE")
	}
	switch os.Args[1] {
	case "rules":
		content, err := io.ReadAll(os.Stdin)
		check(err)
		promql := parser.NewParser(parser.Options{})
		groups, errs := rulefmt.Parse(content, false, model.UTF8Validation, promql, slog.Default())
		for _, err := range errs {
			fmt.Fprintln(os.Stderr, err)
		}
		if len(errs) > 0 {
			os.Exit(1)
		}
		for _, group := range groups.Groups {
			for _, rule := range group.Rules {
				selectors(promql, rule.Expr)
			}
		}
	case "exprs":
		var expressions []string
		check(json.NewDecoder(os.Stdin).Decode(&expressions))
		promql := parser.NewParser(parser.Options{})
		for _, expression := range expressions {
			selectors(promql, expression)
		}
	case "metrics":
		problems, err := promlint.New(os.Stdin).Lint()
		check(err)
		for _, problem := range problems {
			fmt.Fprintf(os.Stderr, "%s: %s\n", problem.Metric, problem.Text)
		}
		if len(problems) > 0 {
			os.Exit(3) // as promtool
		}
	default:
		fail("there is no " + os.Args[1])
	}
}

// selectors prints each selector of an expression as JSON: its metric and the labels it is matched by.
func selectors(promql parser.Parser, expression string) {
	parsed, err := promql.ParseExpr(expression)
	if err != nil {
		fail(expression + ": " + err.Error())
	}
	parser.Inspect(parsed, func(node parser.Node, _ []parser.Node) error {
		if selector, ok := node.(*parser.VectorSelector); ok {
			found := map[string]string{}
			for _, matcher := range selector.LabelMatchers {
				found[matcher.Name] = matcher.Value
			}
			line, err := json.Marshal(found)
			check(err)
			fmt.Println(string(line))
		}
		return nil
	})
}

func check(err error) {
	if err != nil {
		fail(err.Error())
	}
}

func fail(message string) {
	fmt.Fprintln(os.Stderr, message)
	os.Exit(1)
}
