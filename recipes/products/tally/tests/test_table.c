/* Tests of the library; the results are printed as TAP. */
#include "tally.h"

#include <stdlib.h>
#include <string.h>

static int number;
static int failures;

static void ok(int good, const char *name)
{
	number++;
	if (!good)
		failures++;
	printf("%s %d - %s\n", good ? "ok" : "not ok", number, name);
}

static void add(struct tally *table, const char *line)
{
	if (tally_add(table, line, strlen(line)) != 0)
		abort();
}

static void test_empty(void)
{
	struct tally *table = tally_new();
	struct tally_entry *entries = tally_sorted(table);

	ok(tally_size(table) == 0, "an empty table has no lines");
	ok(entries[0].line == NULL, "an empty table sorts to nothing");
	free(entries);
	tally_free(table);
}

static void test_order(void)
{
	struct tally *table = tally_new();
	struct tally_entry *entries;

	add(table, "rare");
	add(table, "often");
	add(table, "often");
	add(table, "also rare");
	entries = tally_sorted(table);
	ok(strcmp(entries[0].line, "often") == 0 && entries[0].count == 2, "the most frequent line comes first");
	ok(strcmp(entries[1].line, "also rare") == 0, "equally frequent lines are in the order of their bytes");
	ok(entries[3].line == NULL, "the entries have an end");
	free(entries);
	tally_free(table);
}

static void test_many(void)
{
	struct tally *table = tally_new();
	struct tally_entry *entries;
	char line[32];

	for (int round = 0; round < 3; round++)
		for (int i = 0; i < 10000; i++) {
			snprintf(line, sizeof line, "line %d", i);
			add(table, line);
		}
	entries = tally_sorted(table);
	ok(tally_size(table) == 10000, "ten thousand lines are told apart");
	ok(entries[0].count == 3 && entries[9999].count == 3, "each of them is counted three times");
	free(entries);
	tally_free(table);
}

static void test_empty_line(void)
{
	struct tally *table = tally_new();

	add(table, "");
	add(table, "");
	ok(tally_size(table) == 1, "an empty line is a line");
	tally_free(table);
}

int main(void)
{
	test_empty();
	test_order();
	test_many();
	test_empty_line();
	printf("1..%d\n", number);
	return failures != 0;
}
