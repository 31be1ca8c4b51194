"""What `make bench` measures, and the records it left: the speed of training, files, long lists, web pages."""
