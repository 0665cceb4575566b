"""The plugins that come with lmtasks, each registered as anyone's is."""
